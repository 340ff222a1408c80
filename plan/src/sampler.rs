//! The samples of a step and of a shard, from (seed, step) alone.

use std::ops::Range;

use crate::permutation::{Permutation, mix};

/// Computes which samples each shard of each step takes.
///
/// The samples form one endless sequence of *passes* over the data set, each pass in its own order. Step `t` (counted from
/// 0) takes the next `global_batch` positions of the sequence, and shard `s` the `s`-th part of them. Resuming needs the
/// step number and nothing else.
#[derive(Clone, Debug)]
pub struct Sampler {
    samples: u64,
    seed: u64,
    global_batch: u64,
    shards: u64,
    pass: u64,
    order: Permutation,
}

impl Sampler {
    /// A sampler over a data set of `samples` samples. `shards` divides `global_batch`; neither is zero, nor is
    /// `samples`.
    pub fn new(samples: u64, seed: u64, global_batch: u32, shards: u32) -> Self {
        let (global_batch, shards) = (u64::from(global_batch), u64::from(shards));
        Self {
            samples,
            seed,
            global_batch,
            shards,
            pass: 0,
            order: Permutation::new(samples, pass_key(seed, 0)),
        }
    }

    /// Samples in the data set.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The positions in the sequence that shard `shard` of step `step` takes.
    fn positions(&self, step: u64, shard: u32) -> Range<u128> {
        let size = u128::from(self.global_batch / self.shards);
        let start = u128::from(step) * u128::from(self.global_batch) + u128::from(shard) * size;
        start..start + size
    }

    /// The samples of shard `shard` of step `step`, as indices into the data set.
    pub fn shard(&mut self, step: u64, shard: u32) -> Vec<u64> {
        self.positions(step, shard).map(|position| self.sample(position)).collect()
    }

    fn sample(&mut self, position: u128) -> u64 {
        let samples = u128::from(self.samples);
        // No training reaches pass 2⁶⁴; wrapping there keeps the order defined.
        let (pass, index) = ((position / samples) as u64, (position % samples) as u64);
        if pass != self.pass {
            self.pass = pass;
            self.order = Permutation::new(self.samples, pass_key(self.seed, pass));
        }
        self.order.at(index)
    }
}

fn pass_key(seed: u64, pass: u64) -> u64 {
    mix(seed ^ mix(pass.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_every_sample_once_across_steps_and_shards() {
        let (samples, batch, shards) = (97_u64, 12, 4);
        let mut sampler = Sampler::new(samples, 7, batch, shards);
        let sequence: Vec<u64> = (0..200)
            .flat_map(|step| (0..shards).map(move |shard| (step, shard)))
            .flat_map(|(step, shard)| sampler.shard(step, shard))
            .collect();
        let passes: Vec<&[u64]> = sequence.chunks_exact(samples as usize).collect();
        for pass in &passes {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert!(pass.into_iter().eq(0..samples));
        }
        assert_ne!(passes[0], passes[1]);
    }

    #[test]
    fn samples_do_not_depend_on_earlier_calls() {
        let mut straight = Sampler::new(50, 3, 8, 2);
        let all: Vec<_> = (0..40).map(|step| straight.shard(step, 1)).collect();
        let mut jumping = Sampler::new(50, 3, 8, 2);
        for step in [39_u64, 0, 17, 5, 38] {
            assert_eq!(jumping.shard(step, 1), all[step as usize]);
        }
    }
}
