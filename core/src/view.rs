//! A run and its workers as the core shows them to clients.

use std::net::SocketAddr;

use whimbrel_plan::{NodeId, WorkerId};

use crate::{interval::Interval, phase::Phase};

/// A run at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct RunView {
    /// What it is doing.
    pub phase: Phase,
    /// Why; may be empty.
    pub detail: String,
    /// Steps applied.
    pub step: u64,
    /// The number of its latest generation; 0 before the first.
    pub generation: u64,
    /// The epoch of its coordinator.
    pub epoch: u64,
    /// Its workers by rank.
    pub workers: Vec<WorkerView>,
    /// Mean loss of the last step.
    pub loss: Option<f64>,
    /// The last validation loss.
    pub val_loss: Option<f64>,
    /// Steps applied in the newest committed checkpoint.
    pub checkpoint: Option<u64>,
    /// The interval between checkpoints, if the core chooses it.
    pub interval: Option<Interval>,
    /// The last failure to save a checkpoint, unless one was committed since.
    pub save_failure: Option<SaveFailure>,
}

/// A checkpoint that could not be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveFailure {
    /// Steps applied to it.
    pub step: u64,
    /// Which worker failed, on which object, and how.
    pub reason: String,
}

/// A worker at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    /// The worker.
    pub worker: WorkerId,
    /// Its slot.
    pub rank: u32,
    /// Its node.
    pub node: NodeId,
    /// Its process id, once it has one.
    pub pid: Option<u32>,
    /// Where its peers reach it, once it is ready.
    pub address: Option<SocketAddr>,
    /// `starting`, `ready`, `training`, `leaving` or `lost`.
    pub state: &'static str,
    /// Its shards of each step; 0 outside a generation.
    pub share: u32,
}
