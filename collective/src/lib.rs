//! The data plane: all-reduce among the workers of a generation over TCP, with the same bits whatever the membership.
//!
//! A worker binds one [`Endpoint`] for its lifetime. For each generation it [joins](Endpoint::join) a [`Group`], a full
//! mesh of authenticated connections, which ends with the generation. In each step it sums the gradients of its own
//! shards in an [`Accumulator`] and passes that to [`Group::all_reduce`]:
//!
//! ```text
//!   shard gradients ──► Accumulator: one partial sum per node of the tree over the shard index
//!                            │  slice j of each partial sum goes to rank j
//!                            ▼
//!   rank j: partial sums of slice j of every rank ──► combined along the tree ──► the sum of slice j ──► every rank
//! ```
//!
//! The tree ([`whimbrel_plan::tree`]) is over the shards, not the workers: the sum does not depend on which worker
//! computed a shard. Slices are cut into chunks. Each chunk is sent, added and sent on independently of the others, so
//! that sending, adding and receiving overlap.
//!
//! An operation blocks its caller and runs on the caller's thread alone: one poll loop over nonblocking sockets. It
//! ends in one of four ways: it is done; a peer is gone, hangs or sends something unexpected, and the [`Error`] names
//! it; another thread [interrupts](Interrupter) it; or the caller misused it. After a failure the group is closed, and
//! the peers notice.
//!
//! Connections are authenticated by the generation's key, which the handshake proves without showing it. Bytes are not
//! encrypted: over a network that others can read or write, use an encrypted tunnel.
//!
//! Where to start reading:
//!
//! - `group.rs`: the operations that a program calls;
//! - `accumulator.rs`: a worker's own sums; `operations/all_reduce.rs`: the sum across workers
//!   (`AllReduce::sum_next_chunk`), in the order of `combine.rs`;
//! - `schedule.rs`: what is computed once per generation; `slices.rs`: the slices and chunks of a gradient;
//! - `operations/exchange.rs`, `operations/transfer.rs`: the notes alone, and the state for members that lack it;
//! - `tcp/mesh.rs`: the poll loop that runs an operation; `tcp/connection.rs` and `tcp/frame.rs`: one connection;
//! - `tcp/join.rs`, `tcp/handshake.rs`: how the members connect.

#[cfg(target_endian = "big")]
compile_error!("tensors travel as they lie in memory, which must be little-endian");

mod accumulator;
mod combine;
mod error;
mod group;
mod operations;
mod schedule;
mod slices;
mod tcp;

pub use accumulator::{Accumulator, Reduction};
pub use error::{During, Error, Peer};
pub use group::Group;
pub use operations::notes::MAX_NOTE;
pub use schedule::Schedule;
pub use tcp::{
    endpoint::{BindError, Endpoint, Limits},
    interrupt::Interrupter,
    mesh::Traffic,
};
