//! Training without Whimbrel: the same steps in one process, one shard after another.
//!
//! It takes the same samples and adds in the same order as a run, so a run with the exact reduction must end with the
//! same bits. Benchmarks measure the overhead of a run against it.

use whimbrel_plan::Sampler;
use whimbrel_worker::{Context, Shard, Trainer, TrainerError};

use crate::math;

/// A trainer and the loop around it.
#[derive(Debug)]
pub struct Bare<T> {
    trainer: T,
    sampler: Sampler,
    shards: u32,
    step: u64,
    /// Partial sums of the current step.
    sums: Vec<Sum>,
    /// Buffers for reuse.
    spare: Vec<Vec<f32>>,
    elements: usize,
}

/// The sum of the gradients of `2^level` shards, or of fewer at the end of the step.
#[derive(Debug)]
struct Sum {
    level: u32,
    gradient: Vec<f32>,
}

impl<T: Trainer> Bare<T> {
    /// Training from step 0.
    pub fn new(context: &Context, trainer: T) -> Self {
        let sampler = Sampler::new(trainer.samples(), context.seed, context.global_batch, context.shards);
        let elements = trainer.gradients().iter().filter_map(|tensor| tensor.checked_elements()).sum();
        let shards = context.shards;
        Self { trainer, sampler, shards, step: 0, sums: Vec::new(), spare: Vec::new(), elements }
    }

    /// Trains one step and returns its loss.
    pub fn step(&mut self) -> Result<f64, TrainerError> {
        let mut loss = 0.0;
        for index in 0..self.shards {
            let samples = self.sampler.shard(self.step, index);
            let mut gradient = self.spare.pop().unwrap_or_else(|| vec![0.0; self.elements]);
            loss +=
                self.trainer.shard(&Shard { step: self.step, index, samples: &samples }, &mut gradient)?;
            self.sums.push(Sum { level: 0, gradient });
            self.merge(|left, right| left.level == right.level);
        }
        self.merge(|_, _| true);
        if let Some(Sum { gradient, .. }) = self.sums.pop() {
            self.trainer.apply(self.step, &gradient)?;
            self.spare.push(gradient);
        }
        self.step += 1;
        Ok(loss)
    }

    /// Adds the last sum to the one before while `due` returns true for the two. This builds the binary tree over the
    /// shards that `whimbrel_plan::tree` describes, from left to right.
    fn merge(&mut self, due: impl Fn(&Sum, &Sum) -> bool) {
        while let [.., left, right] = &mut self.sums[..]
            && due(left, right)
        {
            math::add_to(&mut left.gradient, &right.gradient);
            left.level += 1;
            self.spare.extend(self.sums.pop().map(|sum| sum.gradient));
        }
    }

    /// The mean validation loss; `None` if there is no validation text.
    pub fn evaluate(&mut self) -> Result<Option<f64>, TrainerError> {
        self.trainer.evaluate(0, 1)
    }

    /// The trainer.
    pub fn trainer(&mut self) -> &mut T {
        &mut self.trainer
    }
}
