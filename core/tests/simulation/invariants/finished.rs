//! Finished means that every step is applied and the last checkpoint is committed; and the end in the log is the end that
//! was announced.

use whimbrel_core::{End, Outcome};
use whimbrel_plan::RunId;

use crate::{invariants::same_bits::State, world::World};

pub(crate) fn everything_is_kept(world: &mut World, run: &RunId, end: &End) {
    let Some(record) = world.records.get(run) else { return };
    let logged = end.outcome == Outcome::Released || record.end.as_ref() == Some(end);
    let steps = record.facts.steps;
    let newest = record.start().step();
    let bits = State::after(steps, &record.bits).map(State::digest);
    world.require(logged, || format!("announced before it was in the log: {end:?}"));
    if end.outcome == Outcome::Finished {
        world.require(newest == steps, || format!("finished at step {newest} of {steps}"));
        world
            .require(end.step == steps && end.state == bits, || format!("finished with other bits: {end:?}"));
    }
}
