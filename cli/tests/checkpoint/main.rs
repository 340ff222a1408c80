//! `whimbrel checkpoint` against runs' directories as the store crate writes them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set its stage has failed"
)]

mod clouds;
mod collect;
mod copy;
mod cut_off;
mod diff;
mod interop;
mod look;
mod python;
mod stage;
