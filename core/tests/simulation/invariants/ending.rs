//! The end of a run is announced once, and after it the core only ends the run's workers.

use whimbrel_core::{Command, Notice};
use whimbrel_plan::RunId;

use crate::world::World;

pub(crate) fn nothing_after_the_end(world: &mut World, command: &Command) {
    let run = run_of(command);
    let ended = world.observed.get(run).is_some_and(|seen| seen.ended.is_some());
    let harmless = matches!(
        command,
        Command::Leave { .. }
            | Command::Kill { .. }
            | Command::Announce { notice: Notice::WorkerExited { .. }, .. }
    );
    world.require(!ended || harmless, || format!("after its end: {command:?}"));
}

fn run_of(command: &Command) -> &RunId {
    match command {
        Command::Prepare { run, .. }
        | Command::Start { run, .. }
        | Command::Kill { run, .. }
        | Command::Form { run, .. }
        | Command::Ask { run, .. }
        | Command::Interrupt { run, .. }
        | Command::Leave { run, .. }
        | Command::Commit { run, .. }
        | Command::Discard { run, .. }
        | Command::Quarantine { run, .. }
        | Command::RecordEnd { run, .. }
        | Command::Announce { run, .. } => run,
    }
}
