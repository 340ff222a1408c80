//! The phases of a membership.

use std::time::Duration;

/// What a member is doing. A worker without a membership waits for a generation.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// It connects with the other members.
    Joining,
    /// It receives, sends or restores the state that the generation starts from.
    Entering,
    /// Its program has yet to make the initial state.
    Uninitialised,
    /// Its program makes the initial state.
    Initialising,
    /// It is at a step boundary, where these tasks are open.
    Boundary(Todo),
    /// Its program computes shards, or the all-reduce runs.
    Stepping,
    /// The sum is there, and its program applies it.
    Applying(Reduced),
    /// Its program evaluates parts; the tasks that are open at the boundary after that.
    Evaluating(Todo),
    /// Every step of the run is applied, and the state is hashed.
    Hashing,
    /// Every step of the run is applied and reported.
    Completed,
}

impl Phase {
    /// Whether a slice of this boundary's checkpoint is still to be staged.
    pub(crate) fn is_to_stage(&self) -> bool {
        match self {
            Self::Boundary(todo) | Self::Evaluating(todo) => todo.checkpoint,
            Self::Joining
            | Self::Entering
            | Self::Uninitialised
            | Self::Initialising
            | Self::Stepping
            | Self::Applying(_)
            | Self::Hashing
            | Self::Completed => false,
        }
    }
}

/// The tasks of a step boundary, in the order in which they are done. A checkpoint comes before an evaluation: the
/// sooner it is staged, the sooner it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// Stage this worker's slice of a checkpoint.
    pub checkpoint: bool,
    /// Evaluate the model.
    pub evaluate: bool,
    /// Leave the generation.
    pub halt: bool,
}

/// A step whose sum is there and not yet applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    pub(crate) todo: Todo,
    pub(crate) last: bool,
    pub(crate) loss: f64,
    pub(crate) weight: Option<f64>,
    pub(crate) skipped: Option<String>,
    pub(crate) computed_in: Duration,
    pub(crate) reduced_in: Duration,
}

impl Reduced {
    /// The step's mean loss, the same bits on every member.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// The sum of the shards' weights, the same bits on every member; `None` where the program gives none.
    pub fn weight(&self) -> Option<f64> {
        self.weight
    }

    /// Whether the run ends with this step because the program of a member wanted it to.
    pub fn is_last(&self) -> bool {
        self.last
    }
}
