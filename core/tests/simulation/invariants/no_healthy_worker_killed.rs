//! No worker is killed that is well, reachable and wanted.

use std::time::Duration;

use whimbrel_plan::{RunId, WorkerId};

use crate::{
    worker::{Health, Process},
    world::World,
};

/// This long after heartbeats get through again, one has arrived.
const HEARTBEATS_ARRIVE: Duration = Duration::from_secs(3);

pub(crate) fn has_a_cause(world: &mut World, run: &RunId, worker: WorkerId) {
    let Some(process) = world.pid_of(run, worker).and_then(|pid| world.processes.get(&pid)) else { return };
    let wrong = !works(world, process) || !is_wanted(world, run, worker);
    world.require(wrong, || format!("{worker} is killed though it is well"));
}

fn works(world: &World, process: &Process) -> bool {
    let reachable = world.machines.get(&process.machine).is_some_and(|node| node.name == Some(process.node));
    let heard = process.quiet_until.is_zero() || world.now > process.quiet_until + HEARTBEATS_ARRIVE;
    process.health == Health::Well && process.connected && reachable && heard
}

/// It is ready, and the run goes on.
fn is_wanted(world: &World, run: &RunId, worker: WorkerId) -> bool {
    let seen = world.observed.get(run);
    seen.is_some_and(|seen| seen.ready.contains(&worker) && !seen.recording && seen.ended.is_none())
}
