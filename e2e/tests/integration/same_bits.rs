//! Promises 1 to 3: every sample once, the same bits, no step lost, whatever happens to the workers.

use std::convert::Infallible;

use char_lm::{CharLm, bare::Bare};
use rustix::process::Signal;
use whimbrel_e2e::{
    run::{Run, undisturbed},
    spec::Spec,
};
use whimbrel_state::{StateBytes, digest};
use whimbrel_worker::{Context, Trainer};

const STEPS: u64 = 60;
/// Enough that a run does not end before a signal takes effect.
const DISTURBED: u64 = 400;

/// The BLAKE3 of the final state of an undisturbed run.
fn oracle(steps: u64) -> String {
    undisturbed(&Spec::small(steps), &["--workers", "1"]).state()
}

/// The BLAKE3 of the same training without Whimbrel, in a loop in this process.
fn bare() -> String {
    let settings = serde_json::json!({"layers": 1, "heads": 2, "width": 32, "context": 32});
    let context = Context { seed: 7, global_batch: 32, shards: 16, steps: STEPS, threads: 1, settings };
    let mut training = Bare::new(&context, CharLm::new(&context).unwrap());
    for _ in 0..STEPS {
        training.step().unwrap();
    }
    let state = StateBytes::new(training.trainer().state()).unwrap();
    let Ok(digest) = digest::<Infallible>(state.layout(), STEPS, |tensor, sink| {
        sink(state.tensor(tensor));
        Ok(())
    });
    digest.to_string()
}

#[test]
fn any_number_of_workers_ends_with_the_same_bits() {
    let expected = oracle(STEPS);
    assert_eq!(bare(), expected, "a loop without Whimbrel ends with the same bits");
    for workers in ["2", "3", "5"] {
        let outcome = undisturbed(&Spec::small(STEPS), &["--workers", workers]);
        assert_eq!(outcome.state(), expected, "{workers} workers");
        assert!(outcome.steps().into_iter().eq(1..=STEPS), "each step once: {:?}", outcome.steps());
    }
}

#[test]
fn inexact_sums_end_with_other_bits() {
    // If this fails, equal digests in the other tests prove nothing.
    let spec = Spec { more: "[reduction]\nmode = \"f32\"".into(), ..Spec::small(STEPS) };
    let one = undisturbed(&spec, &["--workers", "1"]).state();
    let three = undisturbed(&spec, &["--workers", "3"]).state();
    assert_ne!(one, three);
}

#[test]
fn a_worker_killed_at_any_step_changes_nothing() {
    let (spec, expected) = (Spec::small(DISTURBED), oracle(DISTURBED));
    for (victim, step) in [(1, 7), (3, 10), (0, 123), (2, 241)] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::start(&spec, folder.path(), &["--workers", "4"]);
        run.until_step(step);
        run.kill_worker(victim);
        let outcome = run.finish();
        assert_eq!(outcome.state(), expected, "worker {victim} killed at step {step}");
        assert!(
            outcome.steps().into_iter().eq(1..=DISTURBED),
            "a step was lost or computed twice: {:?}",
            outcome.steps()
        );
        assert!(outcome.count("generation") >= 2, "no new generation started");
    }
}

#[test]
fn workers_killed_one_after_another_change_nothing() {
    // Enough steps that each killed worker is replaced before the next one is killed.
    let spec = Spec { checkpoint_every: 500, ..Spec::small(3000) };
    let expected = undisturbed(&spec, &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::start(&spec, folder.path(), &["--workers", "3"]);
    for victim in [0, 1, 2] {
        run.until("three members", |event| event["event"] == "generation" && event["workers"] == 3);
        let step = run.until_step(1)["step"].as_u64().unwrap();
        run.until_step(step + 10);
        run.kill_worker(victim);
    }
    let outcome = run.finish();
    assert_eq!(outcome.state(), expected);
    assert!(outcome.steps().into_iter().eq(1..=3000), "a step was lost or computed twice");
}

#[test]
fn all_workers_killed_at_once_resume_from_the_last_checkpoint() {
    let expected = oracle(DISTURBED);
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::start(&Spec::small(DISTURBED), folder.path(), &["--workers", "2"]);
    run.until_checkpoint(20);
    run.kill_worker(0);
    run.kill_worker(1);
    assert_eq!(run.finish().state(), expected);
}

#[test]
fn stopped_and_resumed_the_run_ends_with_the_same_bits() {
    let expected = oracle(DISTURBED);
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::small(DISTURBED);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    run.until_step(13);
    run.signal(Signal::INT);
    let stopped = run.finish();
    assert_eq!(stopped.last()["event"], "stopped", "{:#?}", stopped.last());
    assert_eq!(stopped.code, Some(75));
    let at = stopped.last()["step"].as_u64().unwrap();
    assert!((13..DISTURBED).contains(&at), "stopped at step {at}");
    assert_eq!(at, *stopped.steps().last().unwrap(), "the checkpoint is of the last step");

    let resumed = Run::start(&spec, folder.path(), &["--workers", "3"]).finish();
    assert_eq!(resumed.events[0]["run"], stopped.events[0]["run"], "the same command resumes the same run");
    assert!(resumed.steps().into_iter().eq(at + 1..=DISTURBED), "{:?}", resumed.steps());
    assert_eq!(resumed.state(), expected);
}

#[test]
fn after_the_death_of_every_process_the_run_resumes_with_other_workers() {
    let expected = oracle(DISTURBED);
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::small(DISTURBED);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "4"]);
    let checkpoint = run.until_checkpoint(30)["step"].as_u64().unwrap();
    run.kill_all();
    let resumed = Run::start(&spec, folder.path(), &["--workers", "2"]).finish();
    assert!(resumed.steps()[0] > checkpoint, "{:?}", resumed.steps());
    assert_eq!(resumed.state(), expected);
}
