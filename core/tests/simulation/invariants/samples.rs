//! Every sample once: the members of a generation take part in the same step, and their shards are all shards of it, each
//! exactly once.

use whimbrel_member::Action;
use whimbrel_plan::Generation;

use crate::{worker::Pid, world::World};

pub(crate) fn are_computed_once(world: &mut World, generation: &Generation, pids: &[Pid]) {
    let doing = pids.iter().filter_map(|pid| world.processes.get(pid)).map(|process| &process.doing);
    let mut parts: Vec<(bool, u64, u32, u32)> = doing
        .filter_map(|doing| match doing {
            Action::Step { step, shards } => Some((true, *step, shards.start, shards.end)),
            Action::Evaluate { step, parts } => Some((false, *step, parts.start, parts.end)),
            _ => None,
        })
        .collect();
    parts.sort_unstable();
    let same = parts.windows(2).all(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1));
    let joined = parts.windows(2).all(|pair| pair[0].3 == pair[1].2);
    let ends = parts.first().map(|first| first.2) == Some(0)
        && parts.last().map(|last| last.3) == Some(generation.shards);
    world.require(parts.len() == pids.len() && same && joined && ends, || {
        format!(
            "the members do not share one step of {} shards (step or evaluation, number, shards): {parts:?}",
            generation.shards
        )
    });
}
