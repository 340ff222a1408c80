//! Once nothing goes wrong any more and there are enough nodes, every run ends, every process with it, and what went wrong
//! explains the end.

use std::time::Duration;

use whimbrel_core::{End, Outcome};
use whimbrel_plan::RunId;

use crate::{worker::Process, world::World};

/// This long after the world has healed, everything must be over.
const TIME_TO_END: Duration = Duration::from_secs(240);

pub(crate) fn is_over(world: &World) -> bool {
    let over = |run: &RunId| {
        world.observed.get(run).is_some_and(|seen| seen.ended.is_some()) || is_logged(world, run)
    };
    world.core.is_some()
        && world.records.keys().all(over)
        && !world.processes.values().any(|process| runs(world, process))
}

fn is_logged(world: &World, run: &RunId) -> bool {
    !world.observed.contains_key(run) && world.records.get(run).is_some_and(|record| record.end.is_some())
}

fn runs(world: &World, process: &Process) -> bool {
    world.machines.get(&process.machine).is_some_and(|node| !node.frozen)
}

pub(crate) fn in_time(world: &mut World) {
    let late = world.now > world.scenario.heal_at + TIME_TO_END;
    if late {
        let views = world.core.as_ref().map(|core| core.views());
        world.require(false, || {
            format!("the world has healed {TIME_TO_END:?} ago, and the runs have not ended: {views:?}")
        });
    }
}

pub(crate) fn every_end_is_explained(world: &mut World) {
    for run in world.records.keys().cloned().collect::<Vec<_>>() {
        let ended = world.observed.get(&run).and_then(|seen| seen.ended.clone());
        let Some(end) = ended.or_else(|| world.records.get(&run)?.end.clone()) else { continue };
        let explained = explains(world, &run, &end);
        world.require(explained, || format!("nothing that happened explains {end:?}"));
    }
}

fn explains(world: &World, run: &RunId, end: &End) -> bool {
    let Some(record) = world.records.get(run) else { return false };
    let (incidents, max_failures) = (record.incidents, record.facts.max_failures);
    let Some(seen) = world.observed.get(run) else { return true };
    match end.outcome {
        Outcome::Finished => true,
        Outcome::Cancelled => seen.cancelled,
        Outcome::Released => seen.term_lost,
        Outcome::Stopped => {
            // A stop that is disturbed, or a store that refuses, may keep less than there was.
            let disturbed =
                seen.stop.is_some_and(|stop| incidents.disturbed + Duration::from_secs(15) >= stop);
            let ever_disturbed = !incidents.disturbed.is_zero();
            let lossless = end.reason == "stopped" || end.reason.starts_with("stopped;") && ever_disturbed;
            seen.stop.is_some() && (lossless || disturbed)
        }
        Outcome::Failed if end.reason.contains("a retry would fail too") => incidents.fatal > 0,
        Outcome::Failed if end.reason.starts_with("worker") => incidents.exits >= max_failures,
        Outcome::Failed if end.reason.starts_with("setup") => incidents.setups > 0,
        Outcome::Failed if end.reason.starts_with("checkpoint") => incidents.restores >= max_failures,
        Outcome::Failed if end.reason.starts_with("the last checkpoint") => incidents.saves >= max_failures,
        Outcome::Failed if end.reason.contains("generations in a row broke") => {
            incidents.breaks >= 2 * max_failures
        }
        Outcome::Failed => false,
    }
}
