//! The types of a run spec. `RunSpec::parse` makes one and checks every bound stated here.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Map, Value};

use crate::{
    bandwidth::Bandwidth,
    every::{CheckpointEvery, Every},
};

/// A run as its user describes it. It does not change after submission.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSpec {
    /// The start of its runs' ids: 1 to 60 characters of `a-z`, `0-9`, `-`, `_` and `.`, the first a letter or a digit.
    pub name: String,
    /// A shell command that runs once on each node before the node's first worker starts.
    pub setup: Option<String>,
    /// A command for the user to try on the last checkpoint. It is shown when the run ends, with the checkpoint's URI
    /// in place of `{checkpoint}`.
    pub try_next: Option<String>,
    /// A worker's program and its arguments; the program is not empty.
    pub command: Vec<String>,
    /// `[train]`: what is computed.
    pub train: Train,
    /// `[evaluate]`: how often the model is evaluated.
    pub evaluate: Evaluate,
    /// `[workers]`: how many, and when one counts as failed.
    pub workers: Workers,
    /// `[checkpoint]`: where, how often, and how many are kept.
    pub checkpoint: Checkpoint,
    /// `[reduction]`: how gradients are summed.
    pub reduction: ReductionSpec,
}

/// What a run computes. The bits of its final state depend on this and on the program alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// Optimizer updates of the whole run; at least 1.
    pub steps: u64,
    /// Samples per step; at least 1.
    pub global_batch: u32,
    /// Shards per step, each of `global_batch / shards` samples; divides `global_batch`. The run can use at most this
    /// many workers. Default: the greatest divisor of `global_batch` that is at most 8.
    pub shards: u32,
    /// The seed of the initial state and of the order of samples. Default 0.
    pub seed: u64,
    /// `[train.settings]`: the program's own settings, as JSON. Numbers fit in 64 bits and are finite, dates are
    /// strings, nesting is at most 32 deep, and there are no nulls. Default: empty.
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
    /// Workers that `whimbrel run` starts on its machine: 1 to `max`. Default 2, or `max` if that is less.
    pub local: u32,
    /// With fewer workers than this the run waits: 1 to `max`. Default 1.
    pub min: u32,
    /// The run uses at most this many workers, even if there are nodes for more; at least 1. Here it is already limited
    /// to the number of shards, which is also the default.
    pub max: u32,
    /// Threads with which each worker computes, whatever the number of workers; at least 1. Default 1. Other numbers can
    /// give other bits.
    pub threads: u32,
    /// A slot stays empty after this many failures of its worker in a row without progress; at least 1. Default 3.
    pub max_failures: u32,
    /// The longest that a worker waits for its peers in one step: 1 ms to 30 days. Default 5 minutes.
    pub step_timeout: Duration,
    /// A worker that is told to leave has this long to end its process, and is then killed: 1 ms to 30 days. Default 30
    /// seconds.
    pub leave_timeout: Duration,
    /// Environment variables of the workers, added to those of the node. No name begins with `WHIMBREL_`. Default:
    /// none.
    pub environment: BTreeMap<String, String>,
}

/// The checkpoints of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The store: a URI (`s3://`, `az://`, `gs://`, `file://`) or the path of a folder. `None`, the default: `--store`
    /// or the coordinator's store.
    pub store: Option<String>,
    /// Stores that hold a replica of the run, each written like `store`. They differ from each other and from `store`.
    /// Default: none.
    pub replicas: Vec<String>,
    /// How often a checkpoint is taken. Default: every 5 minutes.
    pub every: CheckpointEvery,
    /// Which checkpoints are kept.
    pub keep: Keep,
    /// The most that each worker uploads per second, and the coordinator for each replica. Default: no limit.
    pub bandwidth: Option<Bandwidth>,
}

/// Which checkpoints are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The number of newest checkpoints; at least 1. Default 3.
    pub last: u32,
    /// Also keeps one checkpoint per this interval permanently; not shorter than `Checkpoint::every`. Default: none.
    pub every: Option<Every>,
}

/// How gradients are summed over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReductionSpec {
    /// Whether the bits of the sum are independent of the membership. Default: exact.
    pub mode: Mode,
    /// What to do about a gradient that is infinite or NaN. Default: stop.
    pub on_nonfinite: OnNonfinite,
}

/// Whether the bits of the gradients' sum are independent of the membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `"exact"`: the same bits whatever the membership.
    #[default]
    Exact,
    /// `"f32"`: fewer bytes; the bits depend on the membership.
    F32,
}

/// What to do about a step whose gradient is infinite or NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnNonfinite {
    /// `"stop"`: the run fails with an error that names the tensor.
    #[default]
    Stop,
    /// `"skip"`: every worker skips the step's update.
    Skip,
    /// `"pass"`: the program gets the sum as it is, and decides, on every worker alike.
    Pass,
}

impl Mode {
    /// The word in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::F32 => "f32",
        }
    }
}

impl OnNonfinite {
    /// The word in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Skip => "skip",
            Self::Pass => "pass",
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
