//! How runs stop, end, and are resumed.

use whimbrel_core::{Command, Exit, Notice, Outcome, RunEvent, Start};
use whimbrel_plan::{NodeId, WorkerId};

use crate::story::{Story, asked, facts, run};

#[test]
fn a_stop_saves_and_then_ends() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 5);
    story.of_run(RunEvent::StopRequested { record: true });
    assert_eq!(asked(&story.take_commands()), [(1, true, true), (2, true, true)]);
    story.halts(1, 1, 6);
    story.halts(2, 1, 6);
    story.saves(1, 1, 6);
    story.saves(2, 1, 6);
    assert!(story.take_commands().contains(&Command::Commit { run: run("r"), generation: 1, step: 6 }));

    story.is_committed(6, 0);
    let commands = story.take_commands();
    let recorded = commands.iter().find_map(|command| match command {
        Command::RecordEnd { end, .. } => Some((end.outcome, end.step, end.reason.as_str())),
        _ => None,
    });
    assert_eq!(recorded, Some((Outcome::Stopped, 6, "stopped")));
    let left = commands.iter().filter(|command| matches!(command, Command::Leave { .. })).count();
    assert_eq!(left, 2);

    story.of_run(RunEvent::EndRecorded);
    let last = story.take_commands().pop();
    assert!(matches!(last, Some(Command::Announce { notice: Notice::Ended(_), .. })), "{last:?}");
}

#[test]
fn a_worker_that_is_told_to_leave_is_killed_once_its_time_is_over() {
    let mut story = Story::with_two_workers(facts());
    story.of_run(RunEvent::CancelRequested);
    story.exits(1, Exit::Code(0));
    let killed = |commands: Vec<Command>| -> Vec<WorkerId> {
        let killed = commands.into_iter().filter_map(|command| match command {
            Command::Kill { worker, .. } => Some(worker),
            _ => None,
        });
        killed.collect()
    };
    let seconds = facts().leave_timeout.as_secs();
    story.seconds_pass(seconds - 1);
    assert_eq!(killed(story.take_commands()), []);
    story.seconds_pass(2);
    assert_eq!(killed(story.take_commands()), [WorkerId(2)]);
}

#[test]
fn a_stop_during_a_halt_for_joiners_still_saves() {
    let mut story = Story::of(facts());
    story.node_joins(1, 1);
    story.becomes_ready(1);
    story.node_joins(2, 1);
    story.becomes_ready(2);
    assert_eq!(asked(&story.take_commands()), [(1, false, true)]);

    // The halt for the joiner comes without a checkpoint: the stop takes one more generation to save.
    story.of_run(RunEvent::StopRequested { record: true });
    story.halts(1, 1, 3);
    let commands = story.take_commands();
    assert!(commands.iter().any(|command| matches!(command, Command::Form { .. })));
    assert_eq!(asked(&commands), [(1, true, true), (2, true, true)]);
}

#[test]
fn a_resumed_run_waits_for_its_old_workers_to_leave() {
    let mut story = Story::with_two_workers(facts());
    story.of_run(RunEvent::StopRequested { record: true });
    story.halts(1, 1, 6);
    story.halts(2, 1, 6);
    story.saves(1, 1, 6);
    story.saves(2, 1, 6);
    story.is_committed(6, 0);
    story.of_run(RunEvent::EndRecorded);
    story.exits(1, Exit::Code(0));
    story.take_commands();

    // The slot of worker 1 is free, worker 2 still occupies the other; no name is used again.
    story.opens("r", Start::Checkpoint { step: 6, manifest: "6-a".into() }, facts());
    assert_eq!(story.started(), [(run("r"), NodeId(1), WorkerId(3))]);
    story.exits(2, Exit::Code(0));
    assert_eq!(story.started(), [(run("r"), NodeId(1), WorkerId(4))]);
}

#[test]
fn different_bits_after_the_same_steps_fail_the_run() {
    let mut story = Story::with_two_workers(facts());
    story.completes(1, 1, 100, 0xaa);
    story.completes(2, 1, 100, 0xbb);
    let end = story.end_to_record();
    assert_eq!(end.outcome, Outcome::Failed);
    assert!(end.reason.contains("workers w1 and w2"), "{}", end.reason);
}

#[test]
fn a_run_that_its_program_ended_early_is_finished_once_that_step_is_in_a_checkpoint() {
    let mut story = Story::with_two_workers(facts());
    story.completes(1, 1, 7, 0xaa);
    story.completes(2, 1, 7, 0xaa);
    story.saves(1, 1, 7);
    story.saves(2, 1, 7);
    story.is_committed(7, 0);
    let end = story.end_to_record();
    assert_eq!((end.outcome, end.step, end.state), (Outcome::Finished, 7, Some([0xaa; 32])));
    assert_eq!(end.reason, "its program ended it after step 7 of 100");
}

#[test]
fn the_last_checkpoint_is_retried_up_to_max_failures() {
    let mut story = Story::with_two_workers(facts());
    story.completes(1, 1, 100, 0xaa);
    story.completes(2, 1, 100, 0xaa);
    for attempt in 1..=3 {
        story.saves(1, 1, 100);
        let (worker, reason) = (WorkerId(2), "access denied".to_owned());
        story.of_run(RunEvent::SliceFailed { worker, generation: 1, step: 100, reason });
        if attempt < 3 {
            story.take_commands();
            story.seconds_pass(5);
            assert_eq!(asked(&story.take_commands()), [(1, true, false), (2, true, false)]);
        }
    }
    let end = story.end_to_record();
    assert_eq!(end.outcome, Outcome::Failed);
    assert_eq!(end.reason, "the last checkpoint could not be saved: worker w2: access denied");
}
