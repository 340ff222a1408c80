//! `whimbrel checkpoint` against runs' directories as the store crate writes them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set its stage has failed")]

mod collect;
mod copy;
mod diff;
mod interop;
mod look;
mod python;
mod stage;
