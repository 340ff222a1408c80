//! The results of `whimbrel checkpoint`, one file a command.

pub(crate) mod collect;
mod comparison;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod interop;
pub(crate) mod list;
pub(crate) mod verify;

pub(crate) use comparison::{Comparison, Lacks};
