//! A generation's members are distinct, ready, not given up, in rank order, neither too many nor too few, and their shares
//! add up to the shards.

use whimbrel_core::Formation;
use whimbrel_plan::{RunId, WorkerId};

use crate::world::World;

pub(crate) fn is_sound(world: &mut World, run: &RunId, formation: &Formation) {
    if let Err(why) = check(world, run, formation) {
        world.require(false, || format!("{formation:?}: {why}"));
    }
}

fn check(world: &World, run: &RunId, formation: &Formation) -> Result<(), String> {
    let none = || "the run is unknown".to_owned();
    let seen = world.observed.get(run).ok_or_else(none)?;
    let facts = &world.records.get(run).ok_or_else(none)?.facts;
    let view = world.core.as_ref().and_then(|core| core.view(run)).ok_or_else(none)?;
    let last = seen.formations.keys().next_back().copied().unwrap_or(0);
    if formation.number != last + 1 {
        return Err(format!("the last one was number {last}"));
    }
    let workers: Vec<WorkerId> = formation.members.iter().map(|member| member.worker).collect();
    let fit = |worker: &WorkerId| seen.ready.contains(worker) && !seen.given_up.contains(worker);
    if let Some(unfit) = workers.iter().find(|worker| !fit(worker)) {
        return Err(format!("{unfit} is not ready, or given up"));
    }
    let rank = |worker: &WorkerId| {
        view.workers.iter().find(|other| other.worker == *worker).map(|worker| worker.rank)
    };
    let ranks: Vec<Option<u32>> = workers.iter().map(rank).collect();
    if ranks.contains(&None) || !ranks.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err(format!("the ranks are {ranks:?}"));
    }
    let shares: u32 = formation.members.iter().map(|member| member.share).sum();
    if shares != facts.shards {
        return Err(format!("shares add up to {shares} of {}", facts.shards));
    }
    let fewest = if seen.stop.is_some() { 1 } else { facts.workers_min as usize };
    if workers.len() < fewest || workers.len() > facts.workers_max as usize {
        return Err(format!("{} members, not {fewest} to {}", workers.len(), facts.workers_max));
    }
    Ok(())
}
