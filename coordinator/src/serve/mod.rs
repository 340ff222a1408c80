pub(crate) mod server;
pub(crate) mod services;
pub(crate) mod stream;
pub(crate) mod token;
