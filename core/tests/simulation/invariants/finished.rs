//! Finished means that every step is applied, or those before the program ended the run, and the last checkpoint is
//! committed; and the end in the log is the end that was announced.

use whimbrel_core::{End, Outcome};
use whimbrel_plan::RunId;

use crate::{invariants::same_bits::State, world::World};

pub(crate) fn everything_is_kept(world: &mut World, run: &RunId, end: &End) {
    let Some(record) = world.records.get(run) else { return };
    let logged = end.outcome == Outcome::Released || record.end.as_ref() == Some(end);
    let (steps, was_wanted) = (record.facts.steps, record.end_wanted);
    let newest = record.start().step();
    let bits = State::after(end.step, &record.bits).map(State::digest);
    world.require(logged, || format!("announced before it was in the log: {end:?}"));
    if end.outcome == Outcome::Finished {
        let early = end.step < steps;
        world.require(newest == end.step && (!early || was_wanted) && early != end.reason.is_empty(), || {
            format!("finished at step {newest} of {steps}: {end:?}")
        });
        world.require(end.state == bits, || format!("finished with other bits: {end:?}"));
        if early {
            world.tally.count("ended by its program");
        }
    }
}
