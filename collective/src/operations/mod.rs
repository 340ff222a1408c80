//! The operations of a group, one per file: what each sends to which rank, and where what it receives belongs. The poll
//! loop in `tcp/mesh.rs` runs them.

pub(crate) mod all_reduce;
pub(crate) mod exchange;
pub(crate) mod notes;
pub(crate) mod transfer;
