//! A checkpoint is committed with the slices of all members of one generation, or not at all, and never one that is
//! behind the newest.

use std::collections::BTreeSet;

use whimbrel_plan::{RunId, WorkerId};

use crate::world::World;

pub(crate) fn is_whole(world: &mut World, run: &RunId, generation: u64, step: u64) {
    let Some(seen) = world.observed.get(run) else { return };
    let members: BTreeSet<WorkerId> = seen
        .formations
        .get(&generation)
        .map(|formation| formation.members.iter().map(|member| member.worker).collect())
        .unwrap_or_default();
    let slices = seen.slices.get(&(generation, step)).cloned().unwrap_or_default();
    let whole = !members.is_empty() && slices == members;
    let newest = world.records.get(run).map_or(0, |record| record.start().step());
    world.require(whole, || {
        format!("step {step} of generation {generation} of {members:?} is committed with {slices:?}")
    });
    world.require(newest <= step, || format!("step {step} is committed after step {newest}"));
}
