//! A step: the program computes shards, the gradients are summed across workers, and the program applies the sum.

use std::{
    mem,
    time::{Duration, Instant},
};

use whimbrel_collective::Error;
use whimbrel_member::{Event, Phase, StepNote};
use whimbrel_spec::OnNonfinite;

use crate::{
    session::{Session, SessionError, misuse, no_group, open::Open},
    trainer::Shard,
};

/// A step of which this worker computes some shards; none, where there are more workers than shards.
#[derive(Debug)]
pub struct Step<'a> {
    pub(super) session: &'a mut Session,
}

/// The sum that the program applies.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The step, counted from 0.
    pub step: u64,
    /// The gradient of the step's mean loss; where the program gives weights, that times [`weight`](Self::weight).
    pub gradient: &'a [f32],
    /// The sum of the shards' weights, added in the order of the shards, the same bits on every worker; `None` where the
    /// program gives none.
    pub weight: Option<f64>,
    /// The step's mean loss, the same bits on every worker.
    pub loss: f64,
}

impl<'a> Step<'a> {
    /// The next shard, and the buffer for its gradient. The program writes every element: the buffer holds values of
    /// other shards. The shard is given out until its loss is [pushed](Self::push).
    ///
    /// `None` when all shards are finished, or when the generation is called off. In both cases the program goes on
    /// with [`reduce`](Self::reduce).
    pub fn shard(&mut self) -> Option<(Shard<'_>, &mut [f32])> {
        if self.session.is_called_off() {
            return None;
        }
        let Session { open: Open::Step(computing), sampler, accumulator, .. } = &mut *self.session else {
            return None;
        };
        if computing.misused {
            return None;
        }
        let index = computing.next()?;
        if computing.samples.is_empty() {
            computing.samples = sampler.shard(computing.step, index);
        }
        Some((Shard { step: computing.step, index, samples: &computing.samples }, accumulator.next()))
    }

    /// Says that the shard's gradient is written. `loss` is the shard's part of the step's mean loss.
    pub fn push(&mut self, loss: f64) {
        self.push_with(loss, None);
    }

    /// As [`push`](Self::push); with a weight, for a mean over something else than samples, such as tokens: `weight` is how
    /// much of it the shard has; `loss` and the gradient are those of the shard's mean, times that. All shards have a weight
    /// or none. The step's mean loss is the sum of the losses divided by that of the weights; the program divides the
    /// gradient.
    pub fn push_with(&mut self, loss: f64, weight: Option<f64>) {
        let Session { open: Open::Step(computing), accumulator, .. } = &mut *self.session else { return };
        // Without samples no shard was given out, and the buffer holds no gradient.
        let is_mixed = !computing.losses.is_empty() && weight.is_some() == computing.weights.is_empty();
        if computing.samples.is_empty() || is_mixed {
            computing.misused = true;
            return;
        }
        accumulator.push();
        computing.losses.push(loss);
        computing.weights.extend(weight);
        computing.samples.clear();
    }

    /// Sums the gradients of all workers' shards: the gradient of the step's mean loss, the same bits on every worker.
    /// The program applies it before it asks for more work.
    ///
    /// `None` when there is nothing to apply: the generation broke, and the step is done again in the next one; or the
    /// gradient is not finite and the run skips such updates. Where the run passes them on
    /// ([`Session::on_nonfinite`]), the program decides, on every worker alike.
    pub fn reduce(self) -> Result<Option<Update<'a>>, SessionError> {
        self.session.reduce()
    }
}

impl Session {
    fn reduce(&mut self) -> Result<Option<Update<'_>>, SessionError> {
        if self.is_called_off() {
            return Ok(None);
        }
        let Open::Step(computing) = mem::take(&mut self.open) else {
            return Err(self.closed(misuse("a reduction without a step")));
        };
        if computing.misused || computing.next().is_some() {
            let (pushed, shards) = (computing.losses.len(), &computing.shards);
            let what = format!(
                "{pushed} losses pushed for shards {shards:?}: push the loss of each shard that is given out, and \
                 either all of them with a weight or none"
            );
            return Err(self.closed(misuse(what)));
        }
        let (step, computed_in) = (computing.step, computing.began.elapsed());
        let (notes, reduced_in) = match self.all_reduce(step, computing.losses, computing.weights) {
            Ok(reduced) => reduced,
            Err(error) => return self.broken(&error).map(|()| None),
        };
        let policy = self.settings.on_nonfinite;
        let found =
            (policy != OnNonfinite::Pass).then(|| self.gradients.first_nonfinite(&self.sum)).flatten();
        let skipped = match found {
            None => None,
            Some(found) if policy == OnNonfinite::Skip => Some(found.tensor),
            Some(found) => {
                let (tensor, element, value) = (found.tensor, found.element, found.value);
                return Err(self.closed(SessionError::Nonfinite { step, tensor, element, value }));
            }
        };
        let skips = skipped.is_some();
        self.handle(Event::Reduced { notes, skipped, computed_in, reduced_in });
        Ok(match self.worker.phase() {
            Some(Phase::Applying(reduced)) if !skips => {
                let (loss, weight) = (reduced.loss(), reduced.weight());
                Some(Update { step, gradient: &self.sum, weight, loss })
            }
            _ => None,
        })
    }

    /// Sums the gradients of all workers into `self.sum`. Returns the notes of all ranks, and the time it took.
    fn all_reduce(
        &mut self,
        step: u64,
        losses: Vec<f64>,
        weights: Vec<f64>,
    ) -> Result<(Vec<Vec<u8>>, Duration), Error> {
        let group = self.group.as_mut().ok_or_else(no_group)?;
        let busy = self.saver.is_busy();
        let note = self.control.read(|requests| self.worker.step_note(requests, busy, losses));
        let note = StepNote { weights, ..note }.encode();
        let began = Instant::now();
        let notes = group.all_reduce(step, &self.accumulator, &note, &mut self.sum)?;
        Ok((notes, began.elapsed()))
    }

    /// Closes the connections for an error that ends the session, so that the peers notice at once.
    pub(super) fn closed(&mut self, error: SessionError) -> SessionError {
        self.group = None;
        error
    }
}
