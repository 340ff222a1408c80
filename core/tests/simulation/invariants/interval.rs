//! If the core chooses how often checkpoints are taken, no interval is shorter than a save takes or than the limits allow,
//! and between those bounds no other interval costs less.

use std::time::Duration;

use whimbrel_core::{Bound, CheckpointEvery, Interval};
use whimbrel_plan::RunId;

use crate::world::World;

/// The longest of this many last saves bounds the interval.
const REMEMBERED: usize = 5;

pub(crate) fn is_the_cheapest(world: &mut World, run: &RunId) {
    let auto = world.records.get(run).is_some_and(|record| record.facts.checkpoint == CheckpointEvery::Auto);
    let view = world.core.as_ref().and_then(|core| core.view(run));
    let interval = view.and_then(|view| view.interval);
    world.require(auto == interval.is_some(), || format!("{run} has {interval:?}"));
    let Some(interval) = interval else { return };
    let Some(cost) = interval.cost else { return };
    world.tally.count(match interval.bound {
        None => "interval: cheapest",
        Some(Bound::Limit) => "interval: by its limits",
        Some(Bound::SaveTakes) => "interval: not below a save",
    });
    let costs = world.observed.get(run).map(|seen| seen.costs.as_slice()).unwrap_or_default();
    let longest = costs.iter().rev().take(REMEMBERED).map(|cost| cost.duration).max().unwrap_or_default();
    let timing = world.scenario.timing;
    let least = longest.max(timing.min_interval);
    let within = (least..=timing.max_interval.max(least)).contains(&interval.every);
    world.require(within, || format!("{interval:?} is not between {least:?} and {:?}", timing.max_interval));
    // Young's sum is a model of rare failures; if they are frequent, the interval is the time between them.
    if interval.bound.is_none() && cost * 2 < interval.between_failures {
        let here = lost(&interval, cost, interval.every);
        for other in [interval.every.mul_f64(0.9), interval.every.mul_f64(1.1)] {
            let there = lost(&interval, cost, other);
            world.require(here < there, || format!("{interval:?} costs {here}, and {other:?} would {there}"));
        }
    }
}

/// The part of the time that an interval costs: for checkpoints and for failures.
fn lost(interval: &Interval, cost: Duration, every: Duration) -> f64 {
    cost.div_duration_f64(every) + every.div_duration_f64(interval.between_failures * 2)
}
