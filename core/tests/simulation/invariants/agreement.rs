//! Members that get through an all-reduce together decide alike at the boundary after it: all stage a checkpoint or none,
//! and all halt or none.

use crate::{worker::Pid, world::World};

/// How many slices each member has staged so far.
pub(crate) fn staged(world: &World, pids: &[Pid]) -> Vec<u32> {
    let staged = |pid: &Pid| world.processes.get(pid).map_or(0, |process| process.saves.staged());
    pids.iter().map(staged).collect()
}

pub(crate) fn all_decide_alike(world: &mut World, pids: &[Pid], before: &[u32]) {
    let stages = staged(world, pids).into_iter().zip(before).map(|(after, before)| after - before);
    let halts =
        pids.iter().map(|pid| world.processes.get(pid).is_none_or(|process| process.mesh().is_none()));
    let decisions: Vec<(u32, bool)> = stages.zip(halts).collect();
    let alike = decisions.windows(2).all(|pair| pair[0] == pair[1]);
    world.require(alike, || format!("members decide differently (slices staged, halted): {decisions:?}"));
}
