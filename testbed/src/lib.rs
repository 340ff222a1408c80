//! What tests need around them: object stores that are real servers, and links that fail.
//!
//! - [`proxy`]: proxies between a program and a store, one that fails at the operation it is told to, one that is far
//!   away.
//! - [`netns`]: a link of few megabits, in a network namespace of its own.
//!
//! A library of tests: it panics, loudly, where a test would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a library of tests: what goes wrong is to fail the test, loudly"
)]

pub mod netns;
pub mod proxy;
