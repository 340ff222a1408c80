//! The pure arithmetic of a step: who computes what, from which samples, and in which order it is summed.
//!
//! Everything here is a function of its arguments alone. That makes "every sample once" and "the same bits" provable:
//! neither the membership nor the clock can change a result.
//!
//! - [`permutation`]: a keyed permutation of the data set in constant memory;
//! - [`sampler`]: the samples of a step and of a shard, from (seed, step) alone;
//! - [`shares`]: how many shards each worker computes;
//! - [`tree`]: the fixed binary tree over the shard index along which gradients are summed;
//! - [`generation`]: one membership: everything that a worker must know to go from step to step;
//! - [`id`]: the names of runs, nodes and workers.

pub mod generation;
pub mod id;
pub mod permutation;
pub mod sampler;
pub mod shares;
pub mod tree;

pub use generation::{Generation, InvalidGeneration, Member, Origin};
pub use id::{InvalidRunId, NodeId, RunId, WorkerId};
pub use permutation::Permutation;
pub use sampler::Sampler;
pub use shares::equal_shares;
pub use tree::Node;
