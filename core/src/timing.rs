//! The core's deadlines: one name for each wait.

use std::time::Duration;

/// How long the core waits, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A worker or node that sends nothing for this long is lost.
    pub heartbeat_timeout: Duration,
    /// A worker must be ready this long after its start was commanded.
    pub start_timeout: Duration,
    /// With enough workers ready, a new generation waits this long for the ones that are still starting.
    pub gather_timeout: Duration,
    /// A run that a person stops has this long to save its checkpoint.
    pub stop_timeout: Duration,
    /// A worker whose connection ended has this long to end its process.
    pub exit_timeout: Duration,
    /// The second start of a failing worker waits this long, each further one twice as long; the first does not wait.
    pub restart_delay: Duration,
    /// A member's slice of a checkpoint must be in the store this long after the first sign of that checkpoint.
    pub save_timeout: Duration,
    /// A checkpoint that failed is taken again after this long.
    pub save_retry_delay: Duration,
    /// With `CheckpointEvery::Auto`: the time to the first checkpoint, which shows what one costs.
    pub first_save: Duration,
    /// With `CheckpointEvery::Auto`: the shortest interval between checkpoints.
    pub min_interval: Duration,
    /// With `CheckpointEvery::Auto`: the longest interval between checkpoints.
    pub max_interval: Duration,
    /// The mean time between failures that the core assumes before it has seen any.
    pub assumed_failure_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(600),
            gather_timeout: Duration::from_secs(3),
            stop_timeout: Duration::from_secs(120),
            exit_timeout: Duration::from_secs(10),
            restart_delay: Duration::from_secs(1),
            save_timeout: Duration::from_secs(1800),
            save_retry_delay: Duration::from_secs(5),
            first_save: Duration::from_secs(60),
            min_interval: Duration::from_secs(10),
            max_interval: Duration::from_secs(4 * 3600),
            assumed_failure_interval: Duration::from_secs(12 * 3600),
        }
    }
}
