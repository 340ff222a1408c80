//! What a program may ask of its generation: who this worker is in it, and which shards come next.

use crate::session::Session;

/// A worker's place in a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The worker's rank, below `workers`. Exactly one member has rank 0.
    pub rank: usize,
    /// The number of members.
    pub workers: usize,
    /// The generation's number. Generations count from 1.
    pub generation: u64,
}

/// A shard that will fall to this worker if its generation lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedShard {
    /// The step, counted from 0.
    pub step: u64,
    /// The shard's number within the step.
    pub index: u32,
    /// Its samples, each an index into the data set.
    pub samples: Vec<u64>,
}

impl Session {
    /// This worker's place in its generation; `None` while it is in none.
    pub fn membership(&self) -> Option<Membership> {
        let (generation, group) = (self.worker.generation()?, self.group.as_ref()?);
        Some(Membership { rank: group.rank(), workers: group.size(), generation: generation.number })
    }

    /// The shards of this worker in the step at hand and those after it, `steps` steps in all: for a program that reads
    /// its samples ahead. They hold for as long as the generation does. Empty while this worker is in none.
    pub fn upcoming(&mut self, steps: u64) -> Vec<AssignedShard> {
        let (Some(membership), Some(next)) = (self.membership(), self.worker.step()) else {
            return Vec::new();
        };
        let Some(generation) = self.worker.generation() else { return Vec::new() };
        let end = next.saturating_add(steps).min(self.settings.context.steps);
        let sampler = &mut self.sampler;
        let shards = (next..end)
            .flat_map(|step| generation.assignment(membership.rank, step).map(move |index| (step, index)));
        shards
            .map(|(step, index)| AssignedShard { step, index, samples: sampler.shard(step, index) })
            .collect()
    }
}
