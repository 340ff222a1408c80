//! What a worker tells the coordinator of its membership.

use std::time::Duration;

use whimbrel_plan::WorkerId;

/// A message to the coordinator. How uploads of slices end is not among them: the driver reports that.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A step is applied. Rank 0 reports it.
    StepApplied {
        /// The generation.
        generation: u64,
        /// Steps applied, this one included.
        step: u64,
        /// The mean loss of the step.
        loss: f64,
        /// The time it took to compute this worker's shards.
        computed_in: Duration,
        /// The time that the all-reduce took.
        reduced_in: Duration,
        /// The tensor for whose gradient the update was skipped, if it was.
        skipped: Option<String>,
    },
    /// The model is evaluated. Rank 0 reports it.
    Evaluated {
        /// The generation.
        generation: u64,
        /// Steps applied to the state.
        step: u64,
        /// The mean validation loss.
        val_loss: f64,
    },
    /// This worker's slice of a checkpoint was not staged.
    SliceFailed {
        /// The generation.
        generation: u64,
        /// Steps applied to the state.
        step: u64,
        /// Why.
        reason: String,
    },
    /// The generation's checkpoint could not be read, and the generation is left.
    RestoreFailed {
        /// The generation.
        generation: u64,
        /// The manifest's name.
        manifest: String,
        /// Whether the checkpoint is damaged, rather than out of reach.
        damaged: bool,
        /// What failed.
        reason: String,
    },
    /// The generation is left before the run's end.
    Halted {
        /// The generation.
        generation: u64,
        /// Steps applied to the state held; `None` where none is.
        step: Option<u64>,
        /// Why.
        cause: Cause,
    },
    /// Every step of the run is applied; the worker stays in its generation.
    Completed {
        /// The generation.
        generation: u64,
        /// Steps applied.
        step: u64,
        /// The BLAKE3 hash of the state.
        state: [u8; 32],
        /// The mean loss of the last step, if this worker took part in it.
        loss: Option<f64>,
        /// The last validation loss, if this worker took part in an evaluation.
        val_loss: Option<f64>,
    },
}

/// Why a generation was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The coordinator asked for it, and all members halted at the same step.
    Agreed,
    /// It cannot go on.
    Broken {
        /// What failed.
        reason: String,
        /// The worker that the failure points to, if to any.
        suspect: Option<WorkerId>,
    },
}
