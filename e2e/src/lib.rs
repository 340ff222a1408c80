//! Whole-system tests and benchmarks: real processes, real sockets, real signals.
//!
//! - [`programs`]: the programs under test, built as a user builds them;
//! - [`run`]: a `whimbrel run` as a child process, and its events;
//! - [`spec`]: run specs that take seconds;
//! - [`cluster`]: a coordinator and agents as separate processes;
//! - [`process`]: child processes and signals;
//! - [`mod@unreachable`]: folders that a test makes unreachable;
//! - [`paced`]: trainers that compute a step when a benchmark allows it;
//! - [`servers`]: the store server of a test;
//! - [`scenario`], [`scenario_runner`]: what a run does with its store, in a process that a test can kill;
//! - [`matrix`]: every fault at every operation of the scenarios.
//!
//! A test starts a run, waits for an event, does something to a process, and checks the outcome. No test waits for time
//! to pass. Every wait has a deadline, so that a failure says what did not happen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "for tests only: a panic fails the test"
)]

pub mod cluster;
pub mod matrix;
pub mod paced;
pub mod process;
pub mod programs;
pub mod run;
pub mod scenario;
pub mod scenario_runner;
pub mod servers;
pub mod spec;
pub mod unreachable;
