//! The data plane over TCP: authenticated connections among the members of a generation, and the poll loop that runs
//! operations over them.

pub(crate) mod connection;
pub(crate) mod endpoint;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod interrupt;
pub(crate) mod join;
pub(crate) mod mesh;
pub(crate) mod operation;
pub(crate) mod wait;
