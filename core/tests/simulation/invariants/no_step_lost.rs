//! No step lost: while one worker that applied a step lives, that step is never computed again.

use whimbrel_core::{End, Formation, Outcome};
use whimbrel_plan::RunId;

use crate::{mesh::first_step, worker::Process, world::World};

pub(crate) fn starts_where_the_furthest_is(world: &mut World, run: &RunId, formation: &Formation) {
    let (first, furthest, number) = (first_step(&formation.origin), furthest(world, run), formation.number);
    world.require(furthest.is_none_or(|furthest| furthest <= first), || {
        format!("generation {number} starts at step {first} while a worker holds {furthest:?}")
    });
    let view = world.core.as_ref().and_then(|core| core.view(run));
    let kept = view.and_then(|view| view.checkpoint);
    world.require(kept.is_none_or(|kept| kept <= first), || {
        format!("generation {number} starts at step {first} while there is a checkpoint of step {kept:?}")
    });
}

/// A run that was stopped undisturbed has every step in its last checkpoint.
pub(crate) fn a_stop_keeps_them(world: &mut World, run: &RunId, end: &End) {
    if end.outcome == Outcome::Stopped && !end.reason.starts_with("stopped,") {
        let furthest = furthest(world, run);
        world.require(furthest.is_none_or(|furthest| furthest <= end.step), || {
            format!("stopped with a checkpoint of step {} while a worker holds {furthest:?}", end.step)
        });
    }
}

/// The most steps applied to a state that a worker holds which is not lost.
fn furthest(world: &World, run: &RunId) -> Option<u64> {
    let seen = world.observed.get(run)?;
    let lives = |process: &&Process| {
        process.run == *run
            && process.term == world.term
            && process.connected
            && !seen.given_up.contains(&process.worker)
    };
    let living = world.processes.values().filter(lives);
    living.filter_map(|process| process.state).map(|state| state.step).max()
}
