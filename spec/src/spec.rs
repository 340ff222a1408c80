//! What a run spec holds. `RunSpec::parse` makes one and checks all that is said here.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Map, Value};

use crate::{
    bandwidth::Bandwidth,
    every::{CheckpointEvery, Every},
};

/// A run, as its user describes it. Immutable once submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSpec {
    /// What the ids of its runs begin with: 1 to 60 characters out of `a-z`, `0-9`, `-`, `_` and `.`, the first a
    /// letter or a digit.
    pub name: String,
    /// A shell command line, run once per node before its first worker starts.
    pub setup: Option<String>,
    /// A command that a person may want to try once there is a checkpoint, shown at the run's end with the checkpoint's
    /// URI in the position of `{checkpoint}`.
    pub try_next: Option<String>,
    /// The program and the arguments of a worker; the program is not empty.
    pub command: Vec<String>,
    /// `[train]`: the arithmetic of the run.
    pub train: Train,
    /// `[evaluate]`: how often the model is evaluated.
    pub evaluate: Evaluate,
    /// `[workers]`: how many there may be, and how patient to be with them.
    pub workers: Workers,
    /// `[checkpoint]`: where, how often, and how many are kept.
    pub checkpoint: Checkpoint,
    /// `[reduction]`: how gradients are summed.
    pub reduction: ReductionSpec,
}

/// The arithmetic of a run: with the program, all that the final bits depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// Optimizer updates of the whole run; at least 1.
    pub steps: u64,
    /// Samples per step; at least 1.
    pub global_batch: u32,
    /// Shards per step, each of `global_batch / shards` samples; divides `global_batch`. No more workers than this can
    /// compute at once.
    pub shards: u32,
    /// The seed of the initial state and of the order of samples. Default 0.
    pub seed: u64,
    /// `[train.settings]`: the program's own, as JSON. Its numbers fit in 64 bits and are finite, its dates are
    /// strings, it nests at most 32 deep, and it has no nulls. Default: empty.
    pub settings: Map<String, Value>,
}

/// How often the model is evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluate {
    /// Steps from one evaluation to the next, at least 1; `None`, the default: only at the end.
    pub every: Option<u64>,
}

/// The workers of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many `whimbrel run` starts on this machine: 1 to `max`. Default 2, or `max` if that is less.
    pub local: u32,
    /// With fewer than this the run waits: 1 to `max`. Default 1.
    pub min: u32,
    /// More than this are not taken in, even if there are nodes for them; at least 1. Already cut down to the number
    /// of shards, which is also the default.
    pub max: u32,
    /// How many times in a row workers may fail without the run getting further before it is given up; at least 1.
    /// Default 3.
    pub max_failures: u32,
    /// The longest that a worker waits for its peers in one step: 1 ms to 30 days. Default 5 minutes.
    pub step_timeout: Duration,
    /// Environment variables added to those of the node. No name begins with `WHIMBREL_`. Default: none.
    pub environment: BTreeMap<String, String>,
}

/// The checkpoints of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where: a URI (`s3://`, `az://`, `gs://`, `file://`) or the path of a folder. `None`, the default, leaves it to
    /// whoever submits the run.
    pub store: Option<String>,
    /// Stores in which copies of the run are kept in step behind it, each written as `store` is. None is named twice,
    /// nor is `store` among them. Default: none.
    pub replicas: Vec<String>,
    /// How often. Default every 5 minutes.
    pub every: CheckpointEvery,
    /// Which are kept.
    pub keep: Keep,
    /// The most that each worker, and the coordinator for the replicas, sends in a second. Default: no limit.
    pub bandwidth: Option<Bandwidth>,
}

/// Which checkpoints are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many of the newest; at least 1. Default 3.
    pub last: u32,
    /// Besides, for good, one in so many steps or so much time; not more often than they are taken. Default: none.
    pub every: Option<Every>,
}

/// How gradients are summed over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReductionSpec {
    /// Whether the sum may show who computed what. Default exact.
    pub mode: Mode,
    /// What to do about a gradient that is infinite or not a number. Default stop.
    pub on_nonfinite: OnNonfinite,
}

/// Whether the sum of the gradients may show who computed what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `"exact"`: the same bits whatever the membership.
    #[default]
    Exact,
    /// `"f32"`: fewer bytes; the bits depend on the membership.
    F32,
}

/// What to do about a step whose gradient is infinite or not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnNonfinite {
    /// `"stop"`: end the run with an error that names the tensor.
    #[default]
    Stop,
    /// `"skip"`: leave the step's update out, on every worker alike.
    Skip,
}

impl Mode {
    /// As the spec writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::F32 => "f32",
        }
    }
}

impl OnNonfinite {
    /// As the spec writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Skip => "skip",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for OnNonfinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
