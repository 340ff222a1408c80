//! Whole-system tests and benchmarks: real processes, real sockets, real signals.
//!
//! - [`programs`]: the programs under test, built as a user builds them;
//! - [`run`]: a `whimbrel run` as a child process, its events read as they come;
//! - [`spec`]: run specs, small enough that a test takes seconds;
//! - [`cluster`]: a coordinator and agents as processes of their own;
//! - [`out_of_reach`]: folders put out of reach of who is at work in them;
//! - [`servers`]: the store server that a test starts;
//! - [`story`], [`player`]: what a run does with its store, by a program that can be killed in it;
//! - [`matrix`]: every fault at every operation of that.
//!
//! A test tells a story: start a run, wait for the event that it is about, do something to a process, look at what comes
//! of it. Nothing waits for time to pass, and every wait has a deadline, so that a failure says what did not happen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a library of tests: what goes wrong is to fail the test, loudly"
)]

pub mod cluster;
pub mod matrix;
pub mod out_of_reach;
pub mod player;
pub mod process;
pub mod programs;
pub mod run;
pub mod servers;
pub mod spec;
pub mod story;
