//! Nobody is killed who is well and does what it was told.

use std::time::Duration;

use whimbrel_plan::{RunId, WorkerId};

use crate::{
    worker::{Health, Process},
    world::World,
};

/// Since its heartbeats get through again, it has been heard of.
const AUDIBLE: Duration = Duration::from_secs(3);

pub(crate) fn deserves_it(world: &mut World, run: &RunId, worker: WorkerId) {
    let Some(process) = world.pid_of(run, worker).and_then(|pid| world.processes.get(&pid)) else { return };
    let wrong = !works(world, process) || !is_wanted(world, run, worker);
    world.require(wrong, || format!("{worker} is killed though nothing is wrong with it"));
}

fn works(world: &World, process: &Process) -> bool {
    let reachable = world.machines.get(&process.machine).is_some_and(|node| node.name == Some(process.node));
    let audible = process.quiet_until.is_zero() || world.now > process.quiet_until + AUDIBLE;
    process.health == Health::Well && process.connected && reachable && audible
}

/// It is ready, and the run goes on.
fn is_wanted(world: &World, run: &RunId, worker: WorkerId) -> bool {
    let watch = world.watches.get(run);
    watch.is_some_and(|watch| watch.ready.contains(&worker) && !watch.recording && watch.ended.is_none())
}
