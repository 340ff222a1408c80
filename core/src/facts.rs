//! What the core must know of a run when it opens it: the relevant part of its spec, and what its run log says.

use std::time::Duration;

/// The part of a run spec that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Steps of the whole run.
    pub steps: u64,
    /// Shards of each step.
    pub shards: u32,
    /// With fewer workers than this the run waits.
    pub workers_min: u32,
    /// The run starts at most this many workers; at most `shards`.
    pub workers_max: u32,
    /// How many times in a row a slot's worker may fail without applying further steps.
    pub max_failures: u32,
    /// The longest a worker may take to reach a step boundary.
    pub step_timeout: Duration,
    /// A worker that was told to leave has this long to end its process.
    pub leave_timeout: Duration,
    /// When checkpoints are due.
    pub checkpoint: CheckpointEvery,
    /// Whether nodes must run a `setup` before the first worker.
    pub has_setup: bool,
}

/// When checkpoints are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointEvery {
    /// After this many steps. The workers count steps and all save at the same one; the core does not ask.
    Steps(u64),
    /// After this much time. The core asks for each checkpoint.
    Time(Duration),
    /// At the [`Interval`](crate::Interval) that costs least. The core asks for each checkpoint.
    Auto,
}

/// What earlier coordinators of a run recorded about its training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EarlierTerms {
    /// How long the run was trained.
    pub trained: Duration,
    /// How often the run lost all its workers, the end of a coordinator included.
    pub failures: u32,
}

/// Where a run's state is when no worker holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// No checkpoint exists: the state is made from the seed.
    Initial,
    /// In a checkpoint.
    Checkpoint {
        /// Steps applied to it.
        step: u64,
        /// Its manifest's name.
        manifest: String,
    },
}

impl Start {
    /// Steps applied to the state.
    pub fn step(&self) -> u64 {
        match self {
            Self::Initial => 0,
            Self::Checkpoint { step, .. } => *step,
        }
    }
}
