//! Whole-system tests. In one program they are built once, and those that wait run beside those that compute.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints why it is skipped"
)]

mod access;
mod bad_input;
mod checkpoints;
mod crash_matrix;
mod damaged;
mod interop;
mod one_build;
mod provider_lost;
mod pytorch;
mod replicas;
mod same_bits;
mod slow_link;
mod spread_out;
mod two_coordinators;
