//! The slices of checkpoints that are not yet committed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use whimbrel_plan::WorkerId;
use whimbrel_proto::{
    border::{self, WireError},
    v1,
};
use whimbrel_state::Pack;

/// Slices of this many generations back are kept: a checkpoint may be completed after its generation has ended.
const GENERATIONS: u64 = 8;

/// The saved slices of a run's unfinished checkpoints, and the members that they come from.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// By the generation that staged the checkpoint, and its step.
    unfinished: BTreeMap<(u64, u64), Unfinished>,
    /// Members in rank order by generation.
    members: BTreeMap<u64, Vec<WorkerId>>,
}

#[derive(Debug)]
struct Unfinished {
    packs: BTreeMap<WorkerId, Vec<Pack>>,
    begun: Instant,
    stall: Duration,
}

/// All slices of a checkpoint.
#[derive(Debug)]
pub(crate) struct SavedSlices {
    /// In the order of the state's bytes.
    pub(crate) packs: Vec<Pack>,
    /// When the first slice was staged.
    pub(crate) begun: Instant,
    /// The longest time for which a worker stopped training.
    pub(crate) stall: Duration,
}

impl Slices {
    /// Takes the members of a new generation, and forgets generations that are long gone.
    pub(crate) fn begin_generation(&mut self, generation: u64, members: Vec<WorkerId>) {
        self.members.insert(generation, members);
        self.members.retain(|&old, _| old + GENERATIONS >= generation);
        self.unfinished.retain(|&(old, _), _| old + GENERATIONS >= generation);
    }

    /// Keeps a worker's slice until its checkpoint is complete. Fails if the message names invalid packs.
    pub(crate) fn add(&mut self, worker: WorkerId, saved: v1::SliceSaved) -> Result<(), WireError> {
        let packs = saved.packs.into_iter().map(Pack::try_from).collect::<Result<_, _>>()?;
        let saving = border::duration(saved.seconds);
        let staged = Instant::now().checked_sub(saving).unwrap_or_else(Instant::now);
        let unfinished = self
            .unfinished
            .entry((saved.generation, saved.step))
            .or_insert_with(|| Unfinished { packs: BTreeMap::new(), begun: staged, stall: Duration::ZERO });
        unfinished.begun = unfinished.begun.min(staged);
        unfinished.stall = unfinished.stall.max(border::duration(saved.blocked_seconds));
        unfinished.packs.insert(worker, packs);
        Ok(())
    }

    /// Forgets a checkpoint that will never be complete.
    pub(crate) fn discard(&mut self, generation: u64, step: u64) {
        self.unfinished.remove(&(generation, step));
    }

    /// Takes out the slices of a checkpoint, in rank order.
    pub(crate) fn take(&mut self, generation: u64, step: u64) -> Result<SavedSlices, String> {
        let mut unfinished =
            self.unfinished.remove(&(generation, step)).ok_or("no slice of the checkpoint is known")?;
        let members = self.members.get(&generation).ok_or("the checkpoint's generation is not known")?;
        let packs =
            members.iter().flat_map(|worker| unfinished.packs.remove(worker).unwrap_or_default()).collect();
        Ok(SavedSlices { packs, begun: unfinished.begun, stall: unfinished.stall })
    }
}
