//! At most one process in a slot, never more workers than slots on a node, and never the same worker twice.

use whimbrel_plan::{NodeId, RunId, WorkerId};

use crate::{queue::Machine, world::World};

pub(crate) fn one_worker_per_slot(world: &mut World, run: &RunId, node: NodeId, worker: WorkerId) {
    let used = world.occupied.values().filter(|&&name| name == node.0).count();
    let machine = world.machines.values().find(|machine| machine.name == Some(node.0));
    // A node that is already gone runs nothing.
    let room = machine.is_none_or(|machine| used < machine.slots as usize);
    world.require(room, || format!("{worker} is started on {node}, which has no free slot"));

    let Some(seen) = world.observed.get(run) else { return };
    let new = !seen.started.contains(&worker);
    let has_setup = world.records.get(run).is_some_and(|record| record.facts.has_setup);
    let prepared = !has_setup || seen.prepared.contains(&node);
    world.require(new, || format!("{worker} is started twice"));
    world.require(prepared, || format!("{worker} is started on {node} before its setup is done"));

    let view = world.core.as_ref().and_then(|core| core.view(run));
    let ranks: Vec<u32> = view.iter().flat_map(|view| &view.workers).map(|worker| worker.rank).collect();
    let distinct = ranks.windows(2).all(|pair| pair[0] < pair[1]);
    world.require(distinct, || format!("two workers of one rank: {ranks:?}"));
}

/// The same, for the processes themselves.
pub(crate) fn has_a_free_slot(world: &mut World, machine: Machine) {
    let running = world.pids_on(machine).len();
    let slots = world.machines.get(&machine).map_or(0, |node| node.slots as usize);
    world.require(running < slots, || format!("{running} processes run in the {slots} slots of a machine"));
}
