//! The connection to the coordinator: one gRPC stream for the life of the worker.
//!
//! [`stream::ControlStream`] opens it and is what the training thread uses. Behind it, [`listener`] reads the
//! coordinator's commands on threads of its own, [`requests`] checks them, and [`outbox`] carries messages back.
//! [`settings`] is what the coordinator says of the run when it welcomes the worker. [`canceller`] ends the training
//! thread's waits from another thread.

pub(crate) mod canceller;
pub(crate) mod listener;
pub(crate) mod outbox;
pub(crate) mod requests;
pub(crate) mod settings;
pub(crate) mod stream;
