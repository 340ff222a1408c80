//! The program's work that is given out and not finished.

use std::{ops::Range, time::Instant};

/// The program's work that is given out and not finished.
#[derive(Debug, Default)]
pub(super) enum Open {
    #[default]
    Nothing,
    Step(Computing),
    Evaluation(Evaluating),
}

/// This worker's shards of a step, while the program computes them.
#[derive(Debug)]
pub(super) struct Computing {
    pub(super) began: Instant,
    pub(super) step: u64,
    pub(super) shards: Range<u32>,
    /// The losses of the finished shards, in order.
    pub(super) losses: Vec<f64>,
    /// Their weights, where the program gives them.
    pub(super) weights: Vec<f64>,
    /// The samples of the shard that is given out and not finished; empty if there is none.
    pub(super) samples: Vec<u64>,
    /// The program pushed a loss without a shard, or only some with a weight.
    pub(super) misused: bool,
}

/// This worker's parts of an evaluation, while the program evaluates them.
#[derive(Debug)]
pub(super) struct Evaluating {
    pub(super) step: u64,
    pub(super) parts: Range<u32>,
    /// The values of the finished parts, in order.
    pub(super) values: Vec<Option<f64>>,
}

impl Computing {
    pub(super) fn new(step: u64, shards: Range<u32>) -> Self {
        let (losses, weights, samples) = (Vec::new(), Vec::new(), Vec::new());
        Self { began: Instant::now(), step, shards, losses, weights, samples, misused: false }
    }

    /// The first shard that is not finished.
    pub(super) fn next(&self) -> Option<u32> {
        self.shards.clone().nth(self.losses.len())
    }
}

impl Evaluating {
    pub(super) fn new(step: u64, parts: Range<u32>) -> Self {
        Self { step, parts, values: Vec::new() }
    }
}
