//! Training without Whimbrel: the same steps in one process, one shard after another.
//!
//! It samples and sums as a run does, so that a run with the exact reduction ends in the same bits; and it costs what
//! training costs by itself, which is what a run's overhead is measured against.

use whimbrel_plan::Sampler;
use whimbrel_worker::{Context, Shard, Trainer, TrainerError};

use crate::math;

/// A trainer with what it takes to drive it.
#[derive(Debug)]
pub struct Bare<T> {
    trainer: T,
    sampler: Sampler,
    shards: u32,
    step: u64,
    /// Partial sums of the step under way.
    sums: Vec<Sum>,
    /// Buffers to use again.
    spare: Vec<Vec<f32>>,
    elements: usize,
}

/// The sum of the gradients of `2^level` shards, or of what there is of them at the end.
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

    /// Adds the last sum to the one before it for as long as the two are to be merged: the binary tree over the shards
    /// that `whimbrel_plan::tree` describes, from left to right.
    fn merge(&mut self, due: impl Fn(&Sum, &Sum) -> bool) {
        while let [.., left, right] = &mut self.sums[..]
            && due(left, right)
        {
            math::add_to(&mut left.gradient, &right.gradient);
            left.level += 1;
            self.spare.extend(self.sums.pop().map(|sum| sum.gradient));
        }
    }

    /// The mean validation loss, if there is anything to validate on.
    pub fn evaluate(&mut self) -> Result<Option<f64>, TrainerError> {
        self.trainer.evaluate(0, 1)
    }

    /// The trainer.
    pub fn trainer(&mut self) -> &mut T {
        &mut self.trainer
    }
}
