//! Promises 1 to 3: every sample once, the same bits, no step lost, whatever happens to the workers.

use rustix::process::Signal;
use whimbrel_e2e::{
    run::{Run, undisturbed},
    spec::Spec,
};

const STEPS: u64 = 60;

/// The BLAKE3 of a run that nobody disturbs.
fn oracle() -> String {
    undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state()
}

#[test]
fn any_number_of_workers_ends_with_the_same_bits() {
    let expected = oracle();
    for workers in ["2", "3", "5"] {
        let outcome = undisturbed(&Spec::small(STEPS), &["--workers", workers]);
        assert_eq!(outcome.state(), expected, "{workers} workers");
        assert!(outcome.steps().into_iter().eq(1..=STEPS), "each step once: {:?}", outcome.steps());
    }
}

#[test]
fn inexact_sums_do_show_how_many_there_were() {
    // Were this to fail, equal digests above would prove nothing.
    let spec = Spec { more: "[reduction]\nmode = \"f32\"".into(), ..Spec::small(STEPS) };
    let one = undisturbed(&spec, &["--workers", "1"]).state();
    let three = undisturbed(&spec, &["--workers", "3"]).state();
    assert_ne!(one, three);
}

#[test]
fn a_worker_killed_at_any_step_changes_nothing() {
    let expected = oracle();
    // A place of its own for each repetition, and none of them at a checkpoint's step alone.
    for (victim, step) in [(1, 7), (3, 10), (0, 23), (2, 41)] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(&Spec::small(STEPS), folder.path(), &["--workers", "4"]);
        run.until_step(step);
        run.kill_worker(victim);
        let outcome = run.finish();
        assert_eq!(outcome.state(), expected, "worker {victim} killed at step {step}");
        assert!(
            outcome.steps().into_iter().eq(1..=STEPS),
            "a step was lost or done twice: {:?}",
            outcome.steps()
        );
        assert!(outcome.count("worker") >= 5, "the killed worker was not started again");
        assert!(outcome.count("generation") >= 2);
    }
}

#[test]
fn workers_killed_one_after_another_change_nothing() {
    let expected = oracle();
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::start(&Spec::small(STEPS), folder.path(), &["--workers", "3"]);
    for (step, victim) in [(5, 0), (15, 1), (25, 2), (35, 0), (45, 1)] {
        run.until_step(step);
        run.kill_worker(victim);
    }
    let outcome = run.finish();
    assert_eq!(outcome.state(), expected);
    assert!(outcome.steps().into_iter().eq(1..=STEPS), "{:?}", outcome.steps());
}

#[test]
fn all_workers_killed_at_once_resume_from_the_last_checkpoint() {
    let expected = oracle();
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::start(&Spec::small(STEPS), folder.path(), &["--workers", "2"]);
    run.until_checkpoint(20);
    run.kill_worker(0);
    run.kill_worker(1);
    assert_eq!(run.finish().state(), expected);
}

#[test]
fn stopped_and_resumed_the_run_ends_with_the_same_bits() {
    let expected = oracle();
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::small(STEPS);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    run.until_step(13);
    run.signal(Signal::INT);
    let stopped = run.finish();
    assert_eq!(stopped.last()["event"], "stopped", "{:#?}", stopped.last());
    assert_eq!(stopped.code, Some(75));
    let at = stopped.last()["step"].as_u64().unwrap();
    assert!((13..STEPS).contains(&at), "stopped at step {at}");
    assert_eq!(at, *stopped.steps().last().unwrap(), "the checkpoint is of the last step");

    let resumed = Run::start(&spec, folder.path(), &["--workers", "3"]).finish();
    assert_eq!(resumed.events[0]["run"], stopped.events[0]["run"], "the same command takes up the same run");
    assert!(resumed.steps().into_iter().eq(at + 1..=STEPS), "{:?}", resumed.steps());
    assert_eq!(resumed.state(), expected);
}

#[test]
fn after_the_death_of_every_process_the_run_resumes_with_other_workers() {
    let expected = oracle();
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::small(STEPS);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "4"]);
    let checkpoint = run.until_checkpoint(30)["step"].as_u64().unwrap();
    run.kill_all();
    let resumed = Run::start(&spec, folder.path(), &["--workers", "2"]).finish();
    assert!(resumed.steps()[0] > checkpoint, "{:?}", resumed.steps());
    assert_eq!(resumed.state(), expected);
}
