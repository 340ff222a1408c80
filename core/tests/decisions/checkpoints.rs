//! Checkpoints: when they are taken, how they fail, and what happens to a damaged one.

use std::time::Duration;

use whimbrel_core::{CheckpointEvery, Command, EarlierTerms, Event, Notice, RunEvent, RunFacts, Start};
use whimbrel_plan::{Origin, WorkerId};

use crate::story::{Story, asked, facts, run, warnings};

#[test]
fn a_damaged_checkpoint_is_quarantined_and_the_one_before_it_is_used() {
    let start = Start::Checkpoint { step: 40, manifest: "40-b".into() };
    let mut story = Story::from(start, RunFacts { workers_max: 1, ..facts() });
    story.node_joins(1, 1);
    story.becomes_ready(1);
    assert_eq!(story.formed().origin, Origin::Checkpoint { step: 40, manifest: "40-b".into() });

    let (worker, manifest, reason) = (WorkerId(1), "40-b".to_owned(), "pack 3 has another hash".to_owned());
    story.of_run(RunEvent::RestoreFailed { worker, generation: 1, manifest, damaged: true, reason });
    let commands = story.take_commands();
    assert_eq!(warnings(&commands), ["checkpoint 40-b was found damaged: pack 3 has another hash"]);
    assert!(commands.iter().any(|command| matches!(command, Command::Quarantine { .. })));
    assert!(!commands.iter().any(|command| matches!(command, Command::Form { .. })));

    story.of_run(RunEvent::Quarantined { start: Start::Checkpoint { step: 30, manifest: "30-a".into() } });
    assert_eq!(story.formed().origin, Origin::Checkpoint { step: 30, manifest: "30-a".into() });
}

#[test]
fn a_checkpoint_due_by_time_is_asked_for_once() {
    let every = CheckpointEvery::Time(Duration::from_secs(60));
    let mut story = Story::with_two_workers(RunFacts { checkpoint: every, ..facts() });
    for step in 1..=12 {
        story.seconds_pass(5);
        story.applies(1, 1, step);
    }
    assert_eq!(asked(&story.take_commands()), [(1, true, false), (2, true, false)]);

    story.saves(1, 1, 13);
    story.seconds_pass(5);
    assert!(story.take_commands().iter().all(|command| !matches!(command, Command::Commit { .. })));
    story.saves(2, 1, 13);
    assert_eq!(story.take_commands(), [Command::Commit { run: run("r"), generation: 1, step: 13 }]);
}

/// Seconds until the members are asked for a checkpoint, while they apply a step in each.
fn seconds_to_the_next_checkpoint(story: &mut Story, generation: u64, step: &mut u64) -> u64 {
    story.take_commands();
    for seconds in 1.. {
        *step += 1;
        story.seconds_pass(1);
        story.applies(1, generation, *step);
        if asked(&story.take_commands()).iter().any(|&(_, checkpoint, _)| checkpoint) {
            return seconds;
        }
    }
    unreachable!("an endless range")
}

#[test]
fn checkpoints_are_taken_at_the_cheapest_interval() {
    let auto = RunFacts { steps: 100_000, checkpoint: CheckpointEvery::Auto, ..facts() };
    let mut story = Story::with_two_workers(auto);
    let mut step = 0;
    // The first one comes soon, and shows what one costs.
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 1, &mut step), 60);
    story.saves(1, 1, step);
    story.saves(2, 1, step);
    story.is_committed(step, 2);
    // Two seconds' cost, and one failure in twelve hours, as assumed: √(2 × 2 s × 12 h).
    let announced = story.take_commands().into_iter().find_map(|command| match command {
        Command::Announce { notice: Notice::Interval(interval), .. } => Some(interval),
        _ => None,
    });
    let announced = announced.unwrap();
    assert_eq!((announced.cost, announced.every.as_secs()), (Some(Duration::from_secs(2)), 415));
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 1, &mut step), 418);

    // The store refuses one: the core warns, asks for another soon, and shows the failure until one is committed.
    let (worker, reason) = (WorkerId(2), "cannot create s3://lab/runs/r/packs/x: 503".to_owned());
    story.of_run(RunEvent::SliceFailed { worker, generation: 1, step, reason });
    let expected = format!(
        "the checkpoint of step {step} could not be saved: worker w2: cannot create \
                            s3://lab/runs/r/packs/x: 503"
    );
    assert_eq!(warnings(&story.take_commands()), [expected]);
    let failure = |story: &Story| story.core.view(&run("r")).unwrap().save_failure;
    assert_eq!(failure(&story).map(|failure| failure.step), Some(step));
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 1, &mut step), 5);
    story.saves(1, 1, step);
    story.saves(2, 1, step);
    assert!(failure(&story).is_some(), "it is not committed yet");
    story.is_committed(step, 2);
    assert_eq!(failure(&story), None);

    // One of two workers is lost. Half a failure in some minutes changes little of what was assumed: √(2 × 2 s × 8.1 h).
    story.is_killed(2);
    story.breaks(1, 1, step);
    let interval = story.core.view(&run("r")).unwrap().interval.unwrap();
    assert_eq!(interval.every.as_secs(), 341);
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 2, &mut step), 343);
}

#[test]
fn a_run_that_failed_often_is_saved_often() {
    let mut story = Story::new();
    let auto = RunFacts { checkpoint: CheckpointEvery::Auto, ..facts() };
    let earlier = EarlierTerms { trained: Duration::from_secs(12 * 3600), failures: 23 };
    story.happens(Event::RunOpened { run: run("r"), facts: auto, epoch: 24, start: Start::Initial, earlier });
    let interval = story.core.view(&run("r")).unwrap().interval.unwrap();
    assert_eq!((interval.between_failures, interval.cost), (Duration::from_secs(3600), None));
}

#[test]
fn a_checkpoint_that_a_lost_member_did_not_save_does_not_block_the_next() {
    let every = CheckpointEvery::Time(Duration::from_secs(60));
    let mut story = Story::with_two_workers(RunFacts { checkpoint: every, ..facts() });
    // Worker 1 got the sum of step 5 and staged a checkpoint; worker 2 did not get the sum.
    story.saves(1, 1, 5);
    story.breaks(2, 1, 4);
    story.breaks(1, 1, 5);
    let commands = story.take_commands();
    assert!(commands.contains(&Command::Discard { run: run("r"), generation: 1, step: 5 }));

    story.applies(1, 2, 6);
    story.seconds_pass(6);
    assert_eq!(asked(&story.take_commands()), [(1, true, false), (2, true, false)]);
}

#[test]
fn a_member_that_leaves_a_generation_at_the_last_step_is_not_waited_for() {
    let mut story = Story::with_two_workers(RunFacts { steps: 5, ..facts() });
    story.applies(1, 1, 5);
    story.breaks(1, 1, 5);
    story.breaks(2, 1, 5);
    assert_eq!(story.formed().origin, Origin::Members { step: 5 });
    // Worker 1 stages the last checkpoint as generation 2 begins; worker 2 finds the connection broken before it stages.
    story.saves(1, 2, 5);
    story.breaks(2, 2, 5);
    let commands = story.take_commands();
    assert!(commands.contains(&Command::Discard { run: run("r"), generation: 2, step: 5 }));
    story.breaks(1, 2, 5);
    story.saves(1, 3, 5);
    story.saves(2, 3, 5);
    assert!(story.take_commands().contains(&Command::Commit { run: run("r"), generation: 3, step: 5 }));
}

#[test]
fn a_checkpoint_whose_packs_are_gone_by_the_commit_is_saved_again() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 10);
    story.saves(1, 1, 10);
    story.saves(2, 1, 10);
    assert!(story.take_commands().contains(&Command::Commit { run: run("r"), generation: 1, step: 10 }));
    let reason = "the checkpoint of step 10 lacks 1 of its packs".to_owned();
    story.of_run(RunEvent::CommitFailed { step: 10, reason });
    let failure = story.core.view(&run("r")).unwrap().save_failure.unwrap();
    assert_eq!((failure.step, failure.reason.contains("lacks")), (10, true));
    story.take_commands();
    story.seconds_pass(5);
    assert_eq!(
        asked(&story.take_commands()),
        [(1, true, false), (2, true, false)],
        "another one is asked for before the next is due"
    );
    story.saves(1, 1, 13);
    story.saves(2, 1, 13);
    assert!(story.take_commands().contains(&Command::Commit { run: run("r"), generation: 1, step: 13 }));
    story.is_committed(13, 0);
    assert_eq!(story.core.view(&run("r")).unwrap().save_failure, None);
}

#[test]
fn a_last_checkpoint_that_fails_during_the_evaluation_is_asked_for_after_it() {
    let mut story = Story::with_two_workers(RunFacts { steps: 5, ..facts() });
    story.applies(1, 1, 5);
    let (worker, generation, step, reason) = (WorkerId(1), 1, 5, "the store refuses".to_owned());
    story.of_run(RunEvent::SliceFailed { worker, generation, step, reason });
    story.take_commands();
    story.seconds_pass(30);
    assert_eq!(asked(&story.take_commands()), [], "no member would receive it");
    story.completes(1, 1, 5, 7);
    assert_eq!(asked(&story.take_commands()), []);
    story.completes(2, 1, 5, 7);
    assert_eq!(asked(&story.take_commands()), [(1, true, false), (2, true, false)]);
    story.saves(1, 1, 5);
    story.saves(2, 1, 5);
    assert!(story.take_commands().contains(&Command::Commit { run: run("r"), generation: 1, step: 5 }));
}

#[test]
fn a_run_that_falls_back_from_its_last_step_is_saved_on_the_way_there() {
    let every = CheckpointEvery::Time(Duration::from_secs(60));
    let mut story = Story::of(RunFacts { steps: 5, workers_max: 1, checkpoint: every, ..facts() });
    story.node_joins(1, 1);
    story.becomes_ready(1);
    story.applies(1, 1, 5);
    story.is_killed(1);
    story.becomes_ready(2);
    assert_eq!(story.formed().origin, Origin::Initial);
    story.applies(2, 2, 1);
    story.take_commands();
    story.seconds_pass(61);
    assert_eq!(asked(&story.take_commands()), [(2, true, false)]);
}
