//! Proxies between a program and an object store.
//!
//! [`FaultProxy`] understands HTTP/1.1: it recognises each [`Operation`], records it, and at the one it was told of lets
//! a [`Fault`] happen, or calls the test back. [`DelayProxy`] moves bytes, each of them late.
//!
//! # Why operations are recognised and not counted
//! A program that has several requests under way sends them in another order each time. An operation is therefore
//! identified by what it does to which object, and by how many like it came before: the second look-up of *this* pack
//! is the same operation in every run, and a fault placed there is placed there every time.

mod answer;
mod delay;
mod fault;
mod operation;
mod plan;
mod server;

pub use delay::DelayProxy;
pub use fault::Fault;
pub use operation::{Operation, Part, Seen, Verb};
pub use plan::Then;
pub use server::FaultProxy;
