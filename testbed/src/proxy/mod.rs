//! Proxies between a program and an object store.
//!
//! [`FaultProxy`] reads HTTP/1.1: it recognises each [`Operation`], records it, and at the operation that the test
//! chose injects a [`Fault`] or calls the test back. [`DelayProxy`] forwards bytes with a delay.
//!
//! # How operations are identified
//! A program with several concurrent requests sends them in a different order each time, so their number does not
//! identify them. An operation is identified by its verb, its object, and how many equal operations came before: the
//! second HEAD of one pack is the same operation in every run of the program, and a fault at that operation is
//! repeatable.

mod answer;
mod delay_proxy;
mod fault;
mod fault_proxy;
mod operation;
mod plan;

pub use delay_proxy::DelayProxy;
pub use fault::Fault;
pub use fault_proxy::FaultProxy;
pub use operation::{Operation, Part, Seen, Verb};
pub use plan::Then;
