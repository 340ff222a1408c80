//! The data plane: all-reduce among the workers of a generation over TCP, with the same bits whatever the membership.
//!
//! A worker binds one [`Endpoint`] and keeps it for life. For each generation it [joins](Endpoint::join) a [`Group`], a
//! full mesh of authenticated connections, and loses it when the generation ends. In each step it sums the gradients of
//! its own shards in an [`Accumulator`] and hands that to [`Group::all_reduce`]:
//!
//! ```text
//!   shard gradients ──► Accumulator: one partial sum per node of the tree over the shard index
//!                            │  slice j of each partial sum goes to rank j
//!                            ▼
//!   rank j: partial sums of slice j of every rank ──► combined along the tree ──► the sum of slice j ──► every rank
//! ```
//!
//! The tree ([`whimbrel_plan::tree`]) is over the shards, not the workers: who computed a shard cannot show in the sum.
//! Slices are cut into chunks, and chunks travel, are combined and travel on independently, so that sending, adding and
//! receiving overlap.
//!
//! An operation blocks its caller and runs on the caller's thread alone: one poll loop over nonblocking sockets. It ends
//! in one of four ways: it is done; a peer is gone, hung or talks nonsense, and the [`Error`] names it; another thread
//! [interrupts](Interrupter) it; or the caller misused it. After a failure the group is closed, and the peers notice.
//!
//! Connections are authenticated by the generation's key, which the handshake proves without showing it. Bytes are not
//! encrypted: what runs over networks that others can read or write must be wrapped in a tunnel that is.
//!
//! Start reading at `all_reduce.rs` (what is sent when), then `mesh.rs` (the poll loop) and `accumulator.rs`; `join.rs`
//! and `handshake.rs` say how a group comes about.

#[cfg(target_endian = "big")]
compile_error!("tensors travel as they lie in memory, which must be little-endian");

mod accumulator;
mod combine;
mod error;
mod group;
mod operations;
mod slices;
mod tcp;

pub use accumulator::{Accumulator, Reduction};
pub use error::{During, Error, Peer};
pub use group::{Group, MAX_NOTE};
pub use tcp::{
    endpoint::{BindError, Endpoint, Limits},
    interrupt::Interrupter,
    mesh::Traffic,
};
