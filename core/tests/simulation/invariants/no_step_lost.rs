//! No step lost: while one worker that applied a step lives, that step is never computed again.

use whimbrel_core::Formation;
use whimbrel_plan::RunId;

use crate::{mesh::first_step, worker::Process, world::World};

pub(crate) fn starts_where_the_furthest_is(world: &mut World, run: &RunId, formation: &Formation) {
    let Some(watch) = world.watches.get(run) else { return };
    let lives = |process: &&Process| {
        process.run == *run
            && process.term == world.term
            && process.connected
            && !watch.given_up.contains(&process.worker)
    };
    let furthest =
        world.processes.values().filter(lives).filter_map(|process| process.state).map(|state| state.step).max();
    let committed = world.records.get(run).map(|record| record.start().step());
    let first = first_step(&formation.origin);
    let number = formation.number;
    world.require(furthest.is_none_or(|furthest| furthest <= first), || {
        format!("generation {number} starts at step {first} while a worker holds {furthest:?}")
    });
    // A checkpoint may have been committed since, or be put aside: only what both know of counts.
    let behind = furthest.is_some() && committed.is_some_and(|committed| committed > first);
    if behind {
        world.tally.count("a generation started behind a checkpoint");
    }
}
