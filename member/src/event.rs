//! What a worker's driver did, and how that ended.

use std::time::Duration;

use whimbrel_plan::WorkerId;

/// How an [`Action`](crate::Action) ended. An event that does not fit the worker's phase changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Every member of the generation is connected.
    Joined,
    /// The state that the generation starts from is received, sent or restored.
    StateReady {
        /// The run ends with that state, though the schedule goes on: see [`Worker::end_run`](crate::Worker::end_run).
        is_last: bool,
    },
    /// The checkpoint that the generation starts from could not be read.
    RestoreFailed {
        /// Whether it is damaged, rather than out of reach.
        damaged: bool,
        /// What failed.
        reason: String,
    },
    /// The all-reduce of a step is done; the program applies the sum next.
    Reduced {
        /// Every rank's note, by rank.
        notes: Vec<Vec<u8>>,
        /// The tensor whose gradient is not finite, where the run skips such updates: the program applies nothing.
        skipped: Option<String>,
        /// The time it took to compute this worker's shards.
        computed_in: Duration,
        /// The time that the all-reduce took.
        reduced_in: Duration,
    },
    /// The values of an evaluation are exchanged.
    Evaluated {
        /// Every rank's values, by rank.
        notes: Vec<Vec<u8>>,
    },
    /// The final state is hashed.
    Hashed {
        /// The BLAKE3 hash of the state.
        state: [u8; 32],
    },
    /// An operation with the peers failed, or was interrupted.
    Broken {
        /// What failed.
        reason: String,
        /// The worker that the failure points to, if to any.
        suspect: Option<WorkerId>,
    },
}
