//! `whimbrel checkpoint`, on directories of runs that the store crate wrote.
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
mod python;
mod read;
mod stage;
