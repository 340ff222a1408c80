//! A coordinator and agents as separate processes, and the death of each.

use rustix::process::Signal;
use whimbrel_e2e::{
    cluster::Cluster,
    run::{DEADLINE, undisturbed},
    spec::Spec,
};

/// Enough that a run does not end before a signal takes effect.
const STEPS: u64 = 600;

#[test]
fn a_run_is_submitted_watched_and_finished_by_two_nodes() {
    let expected = undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let _nodes = [cluster.agent("east", 2), cluster.agent("west", 1)];
    let run = cluster.submit(&Spec { setup: Some("echo getting ready".into()), ..Spec::small(STEPS) });
    cluster.until_phase(&run, "finished");

    let runs = cluster.call(&["runs"]);
    assert!(String::from_utf8_lossy(&runs.stdout).contains(&run));
    let logs = cluster.call(&["logs", &run]);
    assert!(logs.status.success(), "{}", String::from_utf8_lossy(&logs.stderr));
    assert!(
        String::from_utf8_lossy(&logs.stdout).contains("getting ready"),
        "the output of setup is not in the logs"
    );
    let verified = cluster.folder_command(&["checkpoint", "verify", &run, "--store", "runs"]);
    let verified = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.contains(&expected), "{verified}");
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn a_coordinator_that_is_killed_and_restarted_resumes_its_runs() {
    let expected = undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path());
    let _nodes = [cluster.agent("east", 1), cluster.agent("west", 1)];
    let run = cluster.submit(&Spec::small(STEPS));
    cluster.until(&run, "a checkpoint", |status| status["checkpoint"].as_u64() >= Some(10));
    cluster.coordinator().signal(Signal::KILL);
    cluster.coordinator_mut().wait(DEADLINE);
    cluster.start_coordinator();
    let status = cluster.until_phase(&run, "finished");
    assert!(status["epoch"].as_u64() >= Some(2), "{status:#}");
    let verified = cluster.folder_command(&["checkpoint", "verify", &run, "--store", "runs"]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains(&expected));
}

#[test]
fn a_run_that_was_stopped_and_resumed_is_resumed_after_its_coordinators_death() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path());
    let _node = cluster.agent("east", 1);
    let run = cluster.submit(&Spec::small(20_000));
    cluster.until(&run, "step 5", |status| status["step"].as_u64() >= Some(5));
    assert!(cluster.call(&["stop", &run]).status.success());
    let stopped = cluster.until_phase(&run, "stopped")["checkpoint"].as_u64();
    let resumed = cluster.call(&["submit", "--resume", &run]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    cluster.until(&run, "new steps", |status| status["checkpoint"].as_u64() > stopped);
    cluster.coordinator().signal(Signal::KILL);
    cluster.coordinator_mut().wait(DEADLINE);
    cluster.start_coordinator();
    let status = cluster.until(&run, "its workers", |status| status["phase"] == "training");
    assert!(status["epoch"].as_u64() >= Some(3), "{status:#}");
}

#[test]
fn a_dead_node_costs_only_its_workers() {
    let expected = undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let (east, mut west) = (cluster.agent("east", 1), cluster.agent("west", 2));
    let run = cluster.submit(&Spec::small(STEPS));
    cluster.until(&run, "three workers at step 5", |status| {
        status["step"].as_u64() >= Some(5) && status["workers"].as_array().unwrap().len() == 3
    });
    west.signal(Signal::KILL);
    west.wait(DEADLINE);
    cluster.until_phase(&run, "finished");
    let verified = cluster.folder_command(&["checkpoint", "verify", &run, "--store", "runs"]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains(&expected));
    drop(east);
}

#[test]
fn a_run_below_its_minimum_waits_visibly_and_continues_when_nodes_join() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let _east = cluster.agent("east", 1);
    let run = cluster.submit(&Spec { more: "[workers]\nmin = 2".into(), ..Spec::small(20) });
    let status = cluster.until_phase(&run, "waiting");
    let detail = cluster.until(&run, "the reason", |status| {
        status["phase"] == "waiting" && status["detail"].as_str().unwrap().contains("needs 2")
    });
    assert_eq!(detail["step"], status["step"]);
    let _west = cluster.agent("west", 1);
    cluster.until_phase(&run, "finished");
}

#[test]
fn a_cancelled_run_ends_and_frees_its_nodes_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let _east = cluster.agent("east", 1);
    let first = cluster.submit(&Spec::small(1_000_000));
    cluster.until(&first, "step 3", |status| status["step"].as_u64() >= Some(3));
    let second = cluster.submit(&Spec::small(20));
    assert_eq!(cluster.status(&second)["phase"], "waiting");
    let cancelled = cluster.call(&["cancel", &first]);
    assert!(cancelled.status.success(), "{}", String::from_utf8_lossy(&cancelled.stderr));
    cluster.until_phase(&first, "cancelled");
    cluster.until_phase(&second, "finished");
}

#[test]
fn after_an_orderly_stop_the_next_coordinator_resumes_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let _east = cluster.agent("east", 2);
    let run = cluster.submit(&Spec::small(2000));
    cluster.until(&run, "step 15", |status| status["step"].as_u64() >= Some(15));
    assert_eq!(cluster.stop(), Some(0));
    let cluster = Cluster::start(folder.path());
    let status = cluster.until(&run, "its steps", |status| status["checkpoint"].as_u64() >= Some(15));
    assert_ne!(status["phase"], "stopped", "the run is not resumed by itself");
}
