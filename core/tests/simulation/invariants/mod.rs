//! What must hold whatever happens: one promise in each file.

use whimbrel_core::{Command, Notice};

use crate::world::World;

pub(crate) mod agreement;
pub(crate) mod checkpoints;
pub(crate) mod ending;
pub(crate) mod finished;
pub(crate) mod idempotent;
pub(crate) mod interval;
pub(crate) mod liveness;
pub(crate) mod membership;
pub(crate) mod no_healthy_worker_killed;
pub(crate) mod no_step_lost;
pub(crate) mod same_bits;
pub(crate) mod samples;
pub(crate) mod saves;
pub(crate) mod slots;

/// Checks a command before it is executed.
pub(crate) fn check(world: &mut World, command: &Command) {
    ending::nothing_after_the_end(world, command);
    match command {
        Command::Start { run, node, worker } => slots::one_worker_per_slot(world, run, *node, *worker),
        Command::Kill { run, worker, .. } => no_healthy_worker_killed::has_a_cause(world, run, *worker),
        Command::Form { run, formation } => {
            membership::is_sound(world, run, formation);
            no_step_lost::starts_where_the_furthest_is(world, run, formation);
        }
        Command::RecordEnd { run, end } => no_step_lost::a_stop_keeps_them(world, run, end),
        Command::Commit { run, generation, step } => checkpoints::is_whole(world, run, *generation, *step),
        Command::Ask { run, checkpoint: true, halt: false, .. } => interval::is_the_cheapest(world, run),
        Command::Announce { run, notice: Notice::Ended(end) } => {
            finished::everything_is_kept(world, run, end)
        }
        _ => {}
    }
}
