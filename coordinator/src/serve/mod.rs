//! The server: binds, authenticates, and passes calls and streams on to the driver.

pub(crate) mod server;
pub(crate) mod services;
pub(crate) mod stream;
pub(crate) mod token;
