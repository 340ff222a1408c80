//! What the core must know of a run, and its own patience.

use std::time::Duration;

/// The part of a run spec that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Steps of the whole run.
    pub steps: u64,
    /// Shards of each step.
    pub shards: u32,
    /// Below this many workers the run waits.
    pub workers_min: u32,
    /// More than this many are not started; at most `shards`.
    pub workers_max: u32,
    /// How many times in a row a worker's slot may fail without getting further.
    pub max_failures: u32,
    /// The longest a worker may take to come to a step boundary.
    pub step_timeout: Duration,
    /// When checkpoints are due.
    pub checkpoint: CheckpointEvery,
    /// Whether nodes must run a `setup` before the first worker.
    pub has_setup: bool,
}

/// When checkpoints are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointEvery {
    /// After so many steps: the workers see to it themselves, alike, without being asked.
    Steps(u64),
    /// After so much time: the core asks.
    Time(Duration),
    /// As often as is cheapest, by [`Interval`](crate::Interval): the core asks.
    Auto,
}

/// What a run has been through under earlier coordinators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// How long it was trained.
    pub trained: Duration,
    /// How often its whole membership was lost, its coordinator's with it included.
    pub failures: u32,
}

/// Where a run's state is when nobody holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It has not begun: made from the seed.
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

/// How long the core waits for what. Every wait has a name.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A worker or node unreplicated of for this long is lost.
    pub silence: Duration,
    /// A worker must be ready this long after it was told to start.
    pub start: Duration,
    /// With enough workers ready, the others that are starting are waited for this long.
    pub gather: Duration,
    /// A run told to stop has this long to save its checkpoint.
    pub stop: Duration,
    /// A worker told to leave has this long to end.
    pub leave: Duration,
    /// The second start of a failing worker waits this long, each further one twice as long; the first does not wait.
    pub restart: Duration,
    /// A member's slice of a checkpoint must be in the store this long after the first sign of that checkpoint.
    pub save: Duration,
    /// A checkpoint that failed is tried again after this long.
    pub save_again: Duration,
    /// Where intervals between checkpoints are left to the core: the time to the first one, which shows what one costs.
    pub first_save: Duration,
    /// The shortest interval that the core chooses.
    pub least_interval: Duration,
    /// The longest.
    pub most_interval: Duration,
    /// The time between failures that the core begins with, not having seen any.
    pub prior: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(5),
            start: Duration::from_secs(600),
            gather: Duration::from_secs(3),
            stop: Duration::from_secs(120),
            leave: Duration::from_secs(10),
            restart: Duration::from_secs(1),
            save: Duration::from_secs(1800),
            save_again: Duration::from_secs(5),
            first_save: Duration::from_secs(60),
            least_interval: Duration::from_secs(10),
            most_interval: Duration::from_secs(4 * 3600),
            prior: Duration::from_secs(12 * 3600),
        }
    }
}
