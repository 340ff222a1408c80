//! Bad input and broken trainers: the message says what is wrong, where, and what to do; the exit code is not zero; no
//! checkpoint is lost.

use std::{fs, process::Command};

use whimbrel_e2e::{
    programs,
    run::{Run, command, undisturbed},
    spec::Spec,
};

/// Runs a command that must fail, and returns its exit code and its standard error.
fn fails(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap_or_else(|| panic!("ended by a signal: {errors}"));
    assert_ne!(code, 0, "{errors}");
    (code, errors)
}

#[test]
fn all_mistakes_in_a_spec_are_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::small(10);
    let path = spec.write(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("shards = 16", "shards = 5\nstep = 3").replace("seed = 7", "seed = \"seven\"");
    fs::write(&path, text).unwrap();
    let mut run = Command::new(programs::whimbrel());
    run.arg("run").arg(&path).arg("--store").arg(folder.path().join("runs"));
    let (code, errors) = fails(run);
    assert_eq!(code, 2, "{errors}");
    for part in ["run.toml:7", "train.shards", "32", "train.step", "did you mean", "train.seed", "seven"] {
        assert!(errors.contains(part), "{part:?} is missing:\n{errors}");
    }
    assert!(
        !folder.path().join("runs").exists()
            || fs::read_dir(folder.path().join("runs")).unwrap().count() == 0
    );
}

#[test]
fn a_store_that_cannot_be_written_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    // Even root cannot create a folder below a file.
    fs::write(folder.path().join("runs"), "a file").unwrap();
    let (code, errors) = fails(command(&Spec::small(10), folder.path(), &[]));
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("runs"), "{errors}");
}

#[test]
fn an_agent_that_finds_no_coordinator_names_the_address() {
    let mut agent = Command::new(programs::whimbrel());
    agent.args(["agent", "--join", "127.0.0.1:1", "--slots", "1"]);
    let (code, errors) = fails(agent);
    assert_eq!(code, 3, "{errors}");
    assert!(errors.contains("127.0.0.1:1") && errors.contains("check that it runs"), "{errors}");
}

#[test]
fn a_missing_program_fails_the_run_and_is_named() {
    let spec = Spec { command: vec!["./no-such-trainer".into()], ..Spec::small(10) };
    let outcome = undisturbed(&spec, &[]);
    outcome.assert_failed();
    let reason = outcome.last()["reason"].as_str().unwrap();
    assert!(reason.contains("no-such-trainer"), "{reason}");
}

#[test]
fn a_failing_setup_fails_the_run_and_shows_its_last_lines() {
    let spec = Spec { setup: Some("echo no compiler here; exit 7".into()), ..Spec::small(10) };
    let outcome = undisturbed(&spec, &[]);
    outcome.assert_failed();
    let last = outcome.last().to_string();
    assert!(last.contains("setup failed") && last.contains("no compiler here"), "{last}");
}

#[test]
fn a_trainer_that_always_exits_fails_the_run_after_three_failures() {
    let spec = Spec {
        command: vec!["sh".into(), "-c".into(), "echo out of luck; exit 1".into()],
        ..Spec::small(10)
    };
    let outcome = undisturbed(&spec, &["--workers", "1"]);
    outcome.assert_failed();
    let last = outcome.last().to_string();
    assert!(
        last.contains("3 times") && last.contains("exit code 1") && last.contains("out of luck"),
        "{last}"
    );
    assert_eq!(
        (outcome.count("worker"), outcome.count("exit")),
        (3, 3),
        "every start and every exit has an event"
    );
}

#[test]
fn a_trainer_that_panics_at_start_fails_the_run_and_shows_the_panic() {
    let outcome = undisturbed(&Spec::faulty(10, "panic_at_start = true"), &["--workers", "1"]);
    outcome.assert_failed();
    assert!(outcome.last().to_string().contains("cannot be built, on purpose"), "{:#}", outcome.last());
}

#[test]
fn a_trainer_that_always_fails_at_one_step_fails_the_run_and_loses_no_checkpoint() {
    for (setting, words) in [("error_at", "no good, on purpose"), ("panic_at", "went wrong, on purpose")] {
        let spec = Spec { checkpoint_every: 8, ..Spec::faulty(20, &format!("{setting} = 9")) };
        let outcome = undisturbed(&spec, &["--workers", "1"]);
        outcome.assert_failed();
        assert!(outcome.last().to_string().contains(words), "{:#}", outcome.last());
        let checkpoint = outcome.last()["checkpoint"].as_str().unwrap();
        assert!(checkpoint.ends_with("@8"), "{checkpoint}");
    }
}

#[test]
fn a_nan_gradient_fails_the_run_or_skips_the_step_and_names_the_tensor() {
    let outcome = undisturbed(&Spec::faulty(20, "nan_at = 3"), &["--workers", "1"]);
    outcome.assert_failed();
    assert!(outcome.last().to_string().contains("right"), "{:#}", outcome.last());

    let skip = Spec { more: "[reduction]\non_nonfinite = \"skip\"".into(), ..Spec::faulty(20, "nan_at = 3") };
    let (one, two) = (undisturbed(&skip, &["--workers", "1"]), undisturbed(&skip, &["--workers", "2"]));
    assert_eq!(one.state(), two.state(), "every worker skips the step");
    assert!(
        one.events.iter().any(|event| event["event"] == "warning" && event.to_string().contains("right"))
    );
}

#[test]
fn a_hung_worker_is_replaced_like_a_killed_one() {
    // It hangs in the trainer's code, so its heartbeats continue. Its peers report it.
    let spec = Spec {
        more: "[workers]\nstep_timeout = \"2s\"\nmax_failures = 2".into(),
        checkpoint_every: 4,
        ..Spec::faulty(20, "hang_at = 6")
    };
    let outcome = undisturbed(&spec, &["--workers", "1"]);
    outcome.assert_failed();
    assert!(outcome.last().to_string().contains("applied no step within 2 s"), "{:#}", outcome.last());
}

#[test]
fn a_stopped_worker_is_replaced_like_a_killed_one() {
    // Enough steps that the run does not end before the coordinator notices the silent worker.
    let spec = Spec::small(400);
    let expected = undisturbed(&spec, &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::start(&spec, folder.path(), &["--workers", "3"]);
    run.until_step(8);
    whimbrel_e2e::process::signal(run.worker(1), rustix::process::Signal::STOP);
    let outcome = run.finish();
    assert_eq!(outcome.state(), expected);
    assert!(
        outcome.events.iter().any(|event| event["event"] == "exit" && event.to_string().contains("silent"))
    );
}
