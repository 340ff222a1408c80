//! Copying a run's checkpoints from one store to another.
//!
//! | who | calls | file |
//! | --- | --- | --- |
//! | `whimbrel checkpoint copy` | [`plan_copy`], then [`CopyPlan::execute`] | `plan`, `execute` |
//! | the coordinator, after each commit | [`Replicator::replicate`] for each replica | `replicate` |
//! | the coordinator, when it takes a run over | [`is_ahead`], `recover_from` | `ahead`, `recover_from` |
//!
//! All three plan a copy and execute it. A plan reads both sides and says what will move. Its execution does this, in
//! this order:
//!
//! 1. It takes the term of the destination as a replica (see `log::lineage`), so nothing is written to
//!    a directory that is not a copy of the source.
//! 2. Packs move, those of the newest checkpoint first. Each is compared with its hash before it is put. `transfer`
//!    moves a pack; `memory_budget` bounds the bytes in memory.
//! 3. When all packs of a checkpoint are there, its manifest is put and the log names it. Commits may come in any
//!    order: each entry says where the checkpoint was made ([`Origin`](crate::Origin)).
//! 4. The workers' output is copied.
//! 5. An entry of the log records whether the run was stopped or has ended: `run_outcome`.
//!
//! A copy that is interrupted leaves whole checkpoints and packs that nothing refers to. The newest checkpoint, from
//! which the run would be resumed, arrives first. If the copy is started again, it continues: what has arrived
//! stays, and at most the packs that were in flight move again.

mod ahead;
mod error;
mod execute;
mod memory_budget;
mod plan;
mod recover_from;
mod replicate;
mod report;
mod run_outcome;
mod transfer;

pub use ahead::{is_ahead, newer};
pub use error::CopyError;
pub use plan::{CheckpointSelection, CopyPlan, CopyWork, PlannedCheckpoint, plan_copy};
pub use recover_from::recover_from;
pub use replicate::{Lag, ReplicateError, Replicator, Unreplicated};
pub use report::{Amount, Copied, CopyProgress, CopySize, SkipReason, SkippedCheckpoint};
