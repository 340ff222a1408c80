//! All tests of this crate but one: in one program they are built once and run beside each other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a failure prints its seed")]

mod conformance;
mod copy;
mod crash;
mod damage;
mod diff;
mod hostile;
mod hostile_logs;
mod hostile_models;
mod interop;
mod lineage;
mod log;
mod packs;
mod reading;
mod recover_from;
mod retention;
mod spawning;
mod stores;
mod support;
