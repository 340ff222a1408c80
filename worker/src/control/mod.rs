//! The connection to the coordinator.

pub(crate) mod requests;
pub(crate) mod settings;
pub(crate) mod stream;
