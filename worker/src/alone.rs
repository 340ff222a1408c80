//! A run in this process alone, without a coordinator: the same samples, sums and bits as a run with workers.

use std::num::NonZeroU64;

use whimbrel_collective::{Accumulator, Reduction};
use whimbrel_member::{Schedule, add_parts};
use whimbrel_plan::Sampler;
use whimbrel_spec::{self as spec, OnNonfinite, RunSpec};
use whimbrel_state::{Hash, LayoutError, StateBytes, digest};

use crate::{
    gradients::Gradients,
    session::{
        SessionError, State,
        evaluation::Part,
        join::{Program, ReadyError},
        misuse,
        step::Update,
    },
    trainer::{Context, Shard},
};

/// Trains a run spec in this process, from the first step to the last: for a program that a person starts by hand.
///
/// It saves nothing and resumes nothing. The state after the last step has the same bits as that of a run.
#[derive(Debug)]
pub struct Alone {
    context: Context,
    schedule: Schedule,
    on_nonfinite: OnNonfinite,
    gradients: Gradients,
    sampler: Sampler,
    accumulator: Accumulator,
    sum: Vec<f32>,
    /// Steps applied.
    step: u64,
    /// The losses of the finished shards of this step, in order.
    losses: Vec<f64>,
    /// Their weights, where the program gives them.
    weights: Vec<f64>,
    /// The samples of the shard that is given out and not finished; empty if there is none.
    samples: Vec<u64>,
    /// The sum of this step was handed out.
    reduced: bool,
    /// The program wants the run to end with the next step that is not reduced.
    stopped: bool,
    /// The run ends with the step that was reduced last.
    ends: bool,
    /// The values of the parts evaluated so far.
    parts: Vec<Option<f64>>,
    /// The state of this step is evaluated.
    evaluated: bool,
}

/// What comes next in a run without a coordinator, as [`Work`](crate::Work) does in a run with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A step: all its shards.
    Step,
    /// An evaluation: all its parts.
    Evaluate,
}

impl Alone {
    /// Prepares to train `spec`.
    pub fn new(spec: &RunSpec, program: &Program) -> Result<Self, ReadyError> {
        if program.samples == 0 {
            return Err(ReadyError::NoSamples);
        }
        let train = &spec.train;
        let reduction = match spec.reduction.mode {
            spec::Mode::Exact => Reduction::Exact,
            spec::Mode::F32 => Reduction::F32,
        };
        let gradients = Gradients::new(program.gradients.clone())?;
        Ok(Self {
            context: Context {
                seed: train.seed,
                global_batch: train.global_batch,
                shards: train.shards,
                steps: train.steps,
                threads: spec.workers.threads,
                settings: serde_json::Value::Object(train.settings.clone()),
            },
            schedule: Schedule {
                steps: train.steps,
                evaluate_every: spec.evaluate.every,
                checkpoint_every: None,
            },
            on_nonfinite: spec.reduction.on_nonfinite,
            sampler: Sampler::new(program.samples, train.seed, train.global_batch, train.shards),
            accumulator: Accumulator::new(reduction, gradients.elements(), train.shards),
            sum: vec![0.0; gradients.elements()],
            gradients,
            step: 0,
            losses: Vec::new(),
            weights: Vec::new(),
            samples: Vec::new(),
            reduced: false,
            stopped: false,
            ends: false,
            parts: Vec::new(),
            evaluated: false,
        })
    }

    /// What the program must know of its run.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// As [`Session::on_nonfinite`](crate::Session::on_nonfinite).
    pub fn on_nonfinite(&self) -> OnNonfinite {
        self.on_nonfinite
    }

    /// As [`Session::evaluate_every`](crate::Session::evaluate_every).
    pub fn evaluate_every(&mut self, every: NonZeroU64) {
        self.schedule.evaluate_every = Some(every.get());
    }

    /// As [`Session::stop`](crate::Session::stop).
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// As [`Session::ends_with_this_step`](crate::Session::ends_with_this_step).
    pub fn ends_with_this_step(&self) -> bool {
        self.reduced && self.ends
    }

    /// Begins the next step or evaluation, and says that the last step is applied. `None` when every step of the run is.
    #[expect(
        clippy::should_implement_trait,
        reason = "as `Session::next`; what it gives out is not the whole work"
    )]
    pub fn next(&mut self) -> Option<Next> {
        if std::mem::take(&mut self.reduced) {
            self.step += 1;
            self.evaluated = false;
            if self.ends {
                self.schedule.steps = self.step;
            }
        }
        self.losses.clear();
        self.weights.clear();
        self.samples.clear();
        self.parts.clear();
        if self.step > 0 && !self.evaluated && self.schedule.evaluates_at(self.step) {
            return Some(Next::Evaluate);
        }
        self.accumulator.begin(0..self.context.shards);
        (self.step < self.schedule.steps).then_some(Next::Step)
    }

    /// The next part of the evaluation, as in [`Evaluation::part`](crate::Evaluation::part).
    pub fn part(&self) -> Option<Part> {
        let parts = self.context.shards;
        let index = u32::try_from(self.parts.len()).ok().filter(|&index| index < parts)?;
        Some(Part { step: self.step, index, parts })
    }

    /// The part's contribution, as in [`Evaluation::push`](crate::Evaluation::push).
    pub fn push_part(&mut self, value: Option<f64>) {
        self.parts.push(value);
    }

    /// The mean validation loss; `None` where there is nothing to evaluate.
    pub fn finish_evaluation(&mut self) -> Option<f64> {
        self.evaluated = true;
        add_parts(&self.parts)
    }

    /// The next shard of the step, and the buffer for its gradient, as in [`Step::shard`](crate::Step::shard).
    pub fn shard(&mut self) -> Option<(Shard<'_>, &mut [f32])> {
        let index = u32::try_from(self.losses.len()).ok().filter(|&index| index < self.context.shards)?;
        if self.samples.is_empty() {
            self.samples = self.sampler.shard(self.step, index);
        }
        Some((Shard { step: self.step, index, samples: &self.samples }, self.accumulator.next()))
    }

    /// Says that the shard's gradient is written, as [`Step::push`](crate::Step::push) does.
    pub fn push(&mut self, loss: f64) {
        self.push_with(loss, None);
    }

    /// As [`Step::push_with`](crate::Step::push_with).
    pub fn push_with(&mut self, loss: f64, weight: Option<f64>) {
        if !self.samples.is_empty() {
            self.accumulator.push();
            self.losses.push(loss);
            self.weights.extend(weight);
            self.samples.clear();
        }
    }

    /// The sum of the step's gradients, as [`Step::reduce`](crate::Step::reduce) gives it. `None` when the sum is not
    /// finite and the spec says that such steps are skipped.
    pub fn reduce(&mut self) -> Result<Option<Update<'_>>, SessionError> {
        let sum = self
            .accumulator
            .partials()
            .next()
            .filter(|_| self.losses.len() as u64 == u64::from(self.context.shards));
        let Some((_, sum)) = sum else {
            return Err(misuse(format!(
                "{} losses pushed for {} shards",
                self.losses.len(),
                self.context.shards
            )));
        };
        if !self.weights.is_empty() && self.weights.len() != self.losses.len() {
            return Err(misuse(format!(
                "{} of {} losses with a weight",
                self.weights.len(),
                self.losses.len()
            )));
        }
        self.sum.copy_from_slice(sum);
        (self.reduced, self.ends) = (true, self.stopped);
        let passes = self.on_nonfinite == OnNonfinite::Pass;
        match self.gradients.first_nonfinite(&self.sum).filter(|_| !passes) {
            Some(_) if self.on_nonfinite == OnNonfinite::Skip => return Ok(None),
            Some(found) => {
                return Err(SessionError::Nonfinite {
                    step: self.step,
                    tensor: found.tensor,
                    element: found.element,
                    value: found.value,
                });
            }
            None => {}
        }
        let total = |values: &[f64]| values.iter().fold(0.0, |sum, value| sum + value);
        let weight = (!self.weights.is_empty()).then(|| total(&self.weights));
        let loss = total(&self.losses) / weight.unwrap_or(1.0);
        Ok(Some(Update { step: self.step, gradient: &self.sum, weight, loss }))
    }

    /// The BLAKE3 of the state after the steps that are applied, as a run reports it for its last step.
    pub fn digest(&self, state: &mut dyn State) -> Result<Hash, LayoutError> {
        let bytes = StateBytes::new(state.tensors())?;
        let Ok(digest) = digest::<std::convert::Infallible>(bytes.layout(), self.step, |index, sink| {
            sink(bytes.tensor(index));
            Ok(())
        });
        Ok(digest)
    }
}
