//! What a session gives its program to do.

use crate::{
    session::{Session, SessionError},
    trainer::Shard,
};

/// What a session gives its program to do. Whatever is left undone is handed out anew by the next
/// [`Session::next`].
#[derive(Debug)]
pub enum Work<'a> {
    /// Make the initial state from the seed again: the program's state has been changed since it was built. It counts
    /// as made when the next work is asked for.
    Initialise,
    /// Compute shards of a step, and apply the sum.
    Step(Step<'a>),
    /// Evaluate parts of the validation data.
    Evaluate(Evaluation<'a>),
}

/// A step of which some shards fall to this worker; none, where there are more workers than shards.
#[derive(Debug)]
pub struct Step<'a> {
    pub(crate) session: &'a mut Session,
}

impl<'a> Step<'a> {
    /// The next shard, and where its gradient is to be written, every element of it: what is there is left over from
    /// other shards. The shard is handed out until its loss is [pushed](Self::push).
    ///
    /// `None` when all are done, or when the generation is called off: go on with [`reduce`](Self::reduce) in either
    /// case.
    pub fn shard(&mut self) -> Option<(Shard<'_>, &mut [f32])> {
        self.session.shard()
    }

    /// Says that the shard's gradient is written. `loss` is its part of the step's mean loss.
    pub fn push(&mut self, loss: f64) {
        self.session.push_shard(loss);
    }

    /// Sums the gradients of all workers' shards: the gradient of the step's mean loss, the same bits on every worker.
    /// The program applies it before it asks for more work.
    ///
    /// `None` when there is nothing to apply: the generation broke, and the step is done again in the next; or the
    /// gradient is not finite and the run skips such updates.
    pub fn reduce(self) -> Result<Option<Update<'a>>, SessionError> {
        self.session.reduce()
    }
}

/// The sum to be applied.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The step, counted from 0.
    pub step: u64,
    /// The gradient of the step's mean loss.
    pub gradient: &'a [f32],
}

/// An evaluation of which some parts fall to this worker.
#[derive(Debug)]
pub struct Evaluation<'a> {
    pub(crate) session: &'a mut Session,
}

/// A part of the validation data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part's number.
    pub index: u32,
    /// How many there are.
    pub parts: u32,
}

impl Evaluation<'_> {
    /// The next part, which is handed out until its value is [pushed](Self::push). `None` when all are done, or when
    /// the generation is called off.
    pub fn part(&mut self) -> Option<Part> {
        self.session.part()
    }

    /// The part's contribution to the mean validation loss; `None` where there is nothing to evaluate.
    pub fn push(&mut self, value: Option<f64>) {
        self.session.push_part(value);
    }

    /// Adds up the values of all workers' parts.
    pub fn finish(self) -> Result<(), SessionError> {
        self.session.finish_evaluation()
    }
}
