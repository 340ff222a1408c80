//! Once nothing goes wrong any more and there are nodes enough, every run comes to an end that what went wrong explains,
//! and so do all its processes.

use std::time::Duration;

use whimbrel_core::{End, Outcome};
use whimbrel_plan::RunId;

use crate::{worker::Process, world::World};

/// After the healing, this much is time enough for everything.
const TIME_ENOUGH: Duration = Duration::from_secs(240);

pub(crate) fn all_is_over(world: &World) -> bool {
    let over = |run: &RunId| {
        world.watches.get(run).is_some_and(|watch| watch.ended.is_some()) || is_logged(world, run)
    };
    world.core.is_some()
        && world.records.keys().all(over)
        && !world.processes.values().any(|process| runs(world, process))
}

fn is_logged(world: &World, run: &RunId) -> bool {
    !world.watches.contains_key(run) && world.records.get(run).is_some_and(|record| record.end.is_some())
}

fn runs(world: &World, process: &Process) -> bool {
    world.machines.get(&process.machine).is_some_and(|node| !node.frozen)
}

pub(crate) fn in_time(world: &mut World) {
    let late = world.now > world.scenario.heal_at + TIME_ENOUGH;
    if late {
        let views = world.core.as_ref().map(|core| core.views());
        world
            .require(false, || format!("all is well for {TIME_ENOUGH:?}, and yet it is not over: {views:?}"));
    }
}

pub(crate) fn every_end_is_explained(world: &mut World) {
    for run in world.records.keys().cloned().collect::<Vec<_>>() {
        let ended = world.watches.get(&run).and_then(|watch| watch.ended.clone());
        let Some(end) = ended.or_else(|| world.records.get(&run)?.end.clone()) else { continue };
        let explained = explains(world, &run, &end);
        world.require(explained, || format!("nothing that happened explains {end:?}"));
    }
}

fn explains(world: &World, run: &RunId, end: &End) -> bool {
    let Some(record) = world.records.get(run) else { return false };
    let (woes, max_failures) = (record.woes, record.facts.max_failures);
    let Some(watch) = world.watches.get(run) else { return true };
    match end.outcome {
        Outcome::Finished => true,
        Outcome::Cancelled => watch.cancelled,
        Outcome::Released => watch.term_lost,
        Outcome::Stopped => {
            // A stop that found no quiet moment, or a store that refused, may keep less than there was.
            let disturbed = watch.stop.is_some_and(|stop| woes.disturbed + Duration::from_secs(15) >= stop);
            let ever_disturbed = !woes.disturbed.is_zero();
            let lossless = end.reason == "stopped" || end.reason.starts_with("stopped;") && ever_disturbed;
            watch.stop.is_some() && (lossless || disturbed)
        }
        Outcome::Failed if end.reason.starts_with("worker") => woes.exits >= max_failures,
        Outcome::Failed if end.reason.starts_with("setup") => woes.setups > 0,
        Outcome::Failed if end.reason.starts_with("checkpoint") => woes.restores >= max_failures,
        Outcome::Failed if end.reason.starts_with("the last checkpoint") => woes.saves >= max_failures,
        Outcome::Failed => false,
    }
}
