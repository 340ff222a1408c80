//! A run in this process alone, without a coordinator: the same samples, sums and bits as a run with workers.

use whimbrel_collective::{Accumulator, Reduction};
use whimbrel_plan::Sampler;
use whimbrel_spec::{self as spec, RunSpec};
use whimbrel_state::{Hash, LayoutError, StateBytes, digest};

use crate::{
    gradients::Gradients,
    session::{
        SessionError, State,
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
    skips_nonfinite: bool,
    gradients: Gradients,
    sampler: Sampler,
    accumulator: Accumulator,
    sum: Vec<f32>,
    /// Steps applied.
    step: u64,
    /// The losses of the finished shards of this step, in order.
    losses: Vec<f64>,
    /// The samples of the shard that is given out and not finished; empty if there is none.
    samples: Vec<u64>,
    /// The sum of this step was handed out.
    reduced: bool,
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
            skips_nonfinite: spec.reduction.on_nonfinite == spec::OnNonfinite::Skip,
            sampler: Sampler::new(program.samples, train.seed, train.global_batch, train.shards),
            accumulator: Accumulator::new(reduction, gradients.elements(), train.shards),
            sum: vec![0.0; gradients.elements()],
            gradients,
            step: 0,
            losses: Vec::new(),
            samples: Vec::new(),
            reduced: false,
        })
    }

    /// What the program must know of its run.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Begins the next step, and says that the last one is applied. False when every step of the run is.
    pub fn next_step(&mut self) -> bool {
        self.step += u64::from(std::mem::take(&mut self.reduced));
        self.losses.clear();
        self.samples.clear();
        self.accumulator.begin(0..self.context.shards);
        self.step < self.context.steps
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
        if !self.samples.is_empty() {
            self.accumulator.push();
            self.losses.push(loss);
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
        self.sum.copy_from_slice(sum);
        self.reduced = true;
        match self.gradients.first_nonfinite(&self.sum) {
            Some(_) if self.skips_nonfinite => return Ok(None),
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
        let loss = self.losses.iter().fold(0.0, |sum, loss| sum + loss);
        Ok(Some(Update { step: self.step, gradient: &self.sum, loss }))
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
