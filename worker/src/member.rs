//! This worker as a member of a generation.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use whimbrel_collective::Group;
use whimbrel_plan::Generation;

/// This worker as a member of a generation.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) generation: Arc<Generation>,
    pub(crate) rank: usize,
    pub(crate) group: Group,
    /// Steps applied, which is also the number of the next step.
    pub(crate) step: u64,
    pub(crate) phase: Phase,
    /// Of the checkpoints that this generation was asked for, how many are taken.
    pub(crate) asks_met: u64,
    /// A checkpoint is due, and was put off while somebody still uploads the one before.
    pub(crate) save_postponed: bool,
}

impl Member {
    /// The shards of the next step that fall to this worker; the parts of an evaluation are given out alike.
    pub(crate) fn assignment(&self) -> Range<u32> {
        self.generation.assignment(self.rank, self.step)
    }
}

/// What a member is doing.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its program has yet to make the initial state.
    Uninitialised(Todo),
    /// Its program makes the initial state; what is to be done after that.
    Initialising(Todo),
    /// It is at a step boundary, where these things are still to be done.
    Boundary(Todo),
    /// Its program computes shards.
    Step(Computing),
    /// The sum is there, and its program applies it.
    Applying(Summed),
    /// Its program evaluates parts; what is to be done at the boundary after that.
    Evaluating(Evaluating, Todo),
    /// Every step of the run is applied.
    Completed,
}

impl Phase {
    /// Whether a slice of this boundary's checkpoint is still to be staged.
    pub(crate) fn is_to_stage(&self) -> bool {
        match self {
            Self::Boundary(todo) | Self::Evaluating(_, todo) => todo.checkpoint,
            Self::Uninitialised(_)
            | Self::Initialising(_)
            | Self::Step(_)
            | Self::Applying(_)
            | Self::Completed => false,
        }
    }
}

/// What is to be done at a step boundary before the next step, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Todo {
    pub(crate) checkpoint: bool,
    pub(crate) evaluate: bool,
    pub(crate) halt: bool,
}

/// The shards of a step that fall to this worker, being computed.
#[derive(Debug)]
pub(crate) struct Computing {
    pub(crate) began: Instant,
    pub(crate) shards: Range<u32>,
    /// The losses of the shards that are done, in order.
    pub(crate) losses: Vec<f64>,
    /// The samples of the shard that was handed out and is not done; empty if there is none.
    pub(crate) samples: Vec<u64>,
    /// A loss was handed in for no shard.
    pub(crate) misused: bool,
}

impl Computing {
    pub(crate) fn new(shards: Range<u32>) -> Self {
        Self { began: Instant::now(), shards, losses: Vec::new(), samples: Vec::new(), misused: false }
    }

    /// The shard that comes next.
    pub(crate) fn next(&self) -> Option<u32> {
        self.shards.clone().nth(self.losses.len())
    }
}

/// A step whose sum has been handed out.
#[derive(Debug)]
pub(crate) struct Summed {
    pub(crate) todo: Todo,
    pub(crate) loss: f64,
    pub(crate) computed_in: Duration,
    pub(crate) reduced_in: Duration,
    /// The tensor whose gradient is not finite, where the update is left out for it.
    pub(crate) skipped: Option<String>,
}

/// The parts of an evaluation that fall to this worker, being computed.
#[derive(Debug)]
pub(crate) struct Evaluating {
    pub(crate) parts: Range<u32>,
    /// What the parts that are done come to, in order.
    pub(crate) values: Vec<Option<f64>>,
}

impl Evaluating {
    pub(crate) fn new(parts: Range<u32>) -> Self {
        Self { parts, values: Vec::new() }
    }
}
