//! Runs with replicas: a lost store costs only time, and a run that continued in one store continues in no other. The
//! stores are folders.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use whimbrel_e2e::{
    cluster::Cluster,
    process,
    run::{Outcome, Run, undisturbed},
    spec::Spec,
    unreachable::Unreachable,
};
use whimbrel_store::{HostedBy, Store};

/// Enough that a run does not end before the test has seen what it waits for, even on a busy machine.
const STEPS: u64 = 600;

/// A run in the store `runs` with these replicas, all in the same folder.
fn replicated(steps: u64, replicas: &[&str]) -> Spec {
    Spec { checkpoint: format!("replicas = {replicas:?}"), ..Spec::small(steps) }
}

/// The BLAKE3 of the final state of an undisturbed run without replicas.
fn oracle(steps: u64) -> String {
    undisturbed(&Spec::small(steps), &["--workers", "1"]).state()
}

/// Reads events until a replica has the checkpoint of this step, or a later one.
fn until_replicated(run: &mut Run, replica: &str, step: u64) -> Value {
    run.until(&format!("the checkpoint of step {step} in {replica}"), |event| {
        event["event"] == "replicated"
            && event["replica"].as_str().unwrap().contains(&format!("/{replica}/"))
            && event["checkpoint"].as_u64() >= Some(step)
    })
}

/// The run's directory in a store of the folder.
fn directory(folder: &Path, store: &str) -> PathBuf {
    let runs: Vec<_> = fs::read_dir(folder.join(store)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

/// The run's id.
fn name(folder: &Path, store: &str) -> String {
    directory(folder, store).file_name().unwrap().to_str().unwrap().to_owned()
}

/// Resumes the run in a store of the folder, by its URI.
fn resume(spec: &Spec, folder: &Path, store: &str, workers: &str) -> Run {
    let uri = format!("{store}/{}", name(folder, store));
    Run::start(spec, folder, &["--workers", workers, "--resume", &uri])
}

fn warned(outcome: &Outcome, of: &str) -> bool {
    outcome.events.iter().any(|event| {
        event["event"] == "warning" && event["text"].as_str().is_some_and(|text| text.contains(of))
    })
}

#[test]
fn a_run_whose_store_is_lost_resumes_from_its_replica_and_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(STEPS, &["west", "south"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    let step = until_replicated(&mut run, "west", 20)["checkpoint"].as_u64().unwrap();
    run.kill_all();
    fs::remove_dir_all(folder.path().join("runs")).unwrap();

    let resumed = resume(&spec, folder.path(), "west", "3").finish();
    assert_eq!(resumed.state(), oracle(STEPS));
    let first = resumed.steps()[0];
    assert!(first > step, "step {first} is computed again, but step {step} was replicated");
    // The lost store is a replica now and is up to date, like the other one: the run ended in all three.
    let ended = resumed.last();
    let replicas: Vec<_> = ended["replicas"].as_array().unwrap().iter().collect();
    assert_eq!(replicas.len(), 2, "{ended:#}");
    for replica in replicas {
        assert_eq!(
            (&replica["up_to_date"], &replica["checkpoint"]),
            (&true.into(), &STEPS.into()),
            "{replica:#}"
        );
    }
    for store in ["runs", "west", "south"] {
        // A replica may collect old checkpoints after the run has ended, so this looks at the log.
        let log = fs::read_dir(directory(folder.path(), store).join("log")).unwrap();
        let log: Vec<_> = log.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
        let is_the_end =
            |entry: &String| entry.contains(r#""record":"ended""#) && entry.contains(&oracle_of(ended));
        assert!(log.iter().any(is_the_end), "{store}: {log:#?}");
    }
}

fn oracle_of(ended: &Value) -> String {
    ended["state"].as_str().unwrap().to_owned()
}

#[test]
fn damage_in_the_store_is_repaired_from_the_replica() {
    let folder = tempfile::tempdir().unwrap();
    // The next checkpoint is far away when this one is replicated, so the replica has all that the store loses.
    let spec = Spec { checkpoint_every: STEPS / 2, ..replicated(STEPS, &["west"]) };
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut run, "west", STEPS / 2);
    run.kill_all();
    fs::remove_dir_all(directory(folder.path(), "runs").join("packs")).unwrap();
    fs::remove_dir_all(directory(folder.path(), "runs").join("manifests")).unwrap();

    let resumed = Run::start(&spec, folder.path(), &["--workers", "2"]).finish();
    assert_eq!(resumed.state(), oracle(STEPS));
    assert!(resumed.steps()[0] > STEPS / 2, "the checkpoint was not used: {:?}", resumed.steps());
    assert!(warned(&resumed, "are whole there again"), "no warning of the repair: {:#?}", resumed.events);
    assert!(!warned(&resumed, "quarantined"), "a checkpoint that a replica has is quarantined");
}

#[test]
fn a_stopped_coordinator_is_fenced_when_the_run_was_resumed_from_its_replica() {
    let folder = tempfile::tempdir().unwrap();
    let steps = 600;
    let spec = Spec { checkpoint_every: 20, ..replicated(steps, &["west"]) };
    let mut first = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut first, "west", 40);
    let asleep: Vec<u32> = first.workers().into_iter().chain([first.id()]).collect();
    asleep.iter().for_each(|&id| process::signal(id, Signal::STOP));

    let mut second = resume(&spec, folder.path(), "west", "1");
    let at = second.until_checkpoint(60)["step"].as_u64().unwrap();
    asleep.iter().for_each(|&id| process::signal(id, Signal::CONT));
    let first = first.finish();
    assert_eq!(first.code, Some(75), "{}", first.errors);
    let reason = first.last()["reason"].as_str().unwrap();
    assert!(reason.starts_with("fenced: "), "{reason}");

    // The second coordinator is not disturbed. It replicates over the first one's directory, so there is one lineage.
    let second = second.finish();
    assert_eq!(second.state(), oracle(steps));
    assert!(second.steps().into_iter().is_sorted_by(|one, next| one < next), "a step was computed twice");
    assert!(second.steps().contains(&(at + 1)));
    assert_eq!(second.last()["replicas"][0]["up_to_date"], true, "{:#}", second.last());
}

#[test]
fn a_run_is_resumed_only_in_the_store_where_it_continued() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(400, &["west"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "1"]);
    until_replicated(&mut run, "west", 20);
    run.kill_all();
    // The store is unreachable while the run continues in the replica.
    let (store, away) = (folder.path().join("runs"), folder.path().join("away"));
    fs::rename(&store, &away).unwrap();
    fs::write(&store, "not a folder").unwrap();
    let mut run = resume(&spec, folder.path(), "west", "1");
    run.until("a warning of the store that cannot be opened", |event| {
        event["event"] == "warning" && event["text"].as_str().unwrap().contains("is not up to date")
    });
    run.until_checkpoint(40);
    run.signal(Signal::INT);
    assert_eq!(run.finish().code, Some(75));

    fs::remove_file(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    let refused = resume(&spec, folder.path(), "runs", "1").finish();
    assert_eq!(refused.code, Some(2), "{}", refused.errors);
    let at = format!("west/{}", name(folder.path(), "west"));
    assert!(refused.errors.contains("went on at") && refused.errors.contains(&at), "{}", refused.errors);

    let finished = resume(&spec, folder.path(), "west", "2").finish();
    assert_eq!(finished.state(), oracle(400));
    assert_eq!(finished.last()["replicas"][0]["up_to_date"], true, "{:#}", finished.last());
}

#[test]
fn resuming_from_a_replica_uses_the_newer_checkpoint_of_a_reachable_store() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(400, &["west"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "1"]);
    until_replicated(&mut run, "west", 10);
    // The replica is unreachable for a while, so it is behind.
    let west = Unreachable::make(folder.path().join("west"));
    let newest = run.until_checkpoint(60)["step"].as_u64().unwrap();
    run.kill_all();
    west.restore();

    let resumed = resume(&spec, folder.path(), "west", "2").finish();
    assert_eq!(resumed.state(), oracle(400));
    assert!(
        resumed.steps()[0] > newest,
        "the store's newer checkpoint is not used: {:?}",
        resumed.steps()[0]
    );
}

#[test]
fn a_store_that_was_reset_to_an_earlier_state_is_brought_up_to_date_from_the_replica() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec { checkpoint_every: 200, ..replicated(STEPS, &["west"]) };
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut run, "west", 400);
    run.kill_all();
    // The store loses the log entries from the commit of step 400 on, and that checkpoint's manifest and packs.
    let here = directory(folder.path(), "runs");
    let is_there =
        |path: &Path| fs::read_to_string(path).unwrap().contains(r#""record":"checkpoint","step":400"#);
    let mut log: Vec<_> =
        fs::read_dir(here.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    log.sort();
    let first_lost = log.iter().position(|entry| is_there(entry)).unwrap();
    log[first_lost..].iter().for_each(|entry| fs::remove_file(entry).unwrap());
    let manifests = fs::read_dir(here.join("manifests")).unwrap().map(|entry| entry.unwrap().path());
    let manifest = manifests.max().unwrap();
    let packs: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    for pack in packs["packs"].as_array().unwrap() {
        let hash = pack["hash"].as_str().unwrap();
        fs::remove_file(here.join("packs").join(&hash[..2]).join(format!("{hash}.safetensors"))).unwrap();
    }
    fs::remove_file(manifest).unwrap();

    let resumed = Run::start(&spec, folder.path(), &["--workers", "1"]).finish();
    assert_eq!(resumed.state(), oracle(STEPS));
    assert!(resumed.steps()[0] > 400, "the replica's checkpoint is not used: {}", resumed.steps()[0]);
    assert!(warned(&resumed, "had a newer checkpoint, of step 400"), "{:#?}", resumed.events);
    assert_eq!(resumed.last()["replicas"][0]["up_to_date"], true, "{:#}", resumed.last());
}

#[test]
fn an_unreachable_replica_delays_nothing_and_is_named_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(200, &["west", "south"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut run, "west", 10);
    Unreachable::make(folder.path().join("west"));
    let outcome = run.finish();
    assert_eq!(outcome.state(), oracle(200));
    let replicas = outcome.last()["replicas"].as_array().unwrap();
    let status = |name: &str| {
        replicas.iter().find(|replica| replica["replica"].as_str().unwrap().contains(name)).unwrap().clone()
    };
    assert_eq!(status("/south/")["up_to_date"], true, "{replicas:#?}");
    assert_eq!(status("/west/")["up_to_date"], false, "{replicas:#?}");
    assert!(status("/west/")["problem"].is_string(), "{replicas:#?}");
    let warning = "is not up to date with the run, which has ended";
    assert!(warned(&outcome, warning), "{:#?}", outcome.events.last());
}

#[test]
fn unusable_replicas_are_refused_with_a_reason_before_the_run_starts() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "not a folder").unwrap();
    for (replica, words) in [
        ("file", "cannot be opened"),
        ("./runs", "the run's own store under another name"),
        ("ftp://west", "there is no store of the kind"),
    ] {
        let outcome = Run::start(&replicated(STEPS, &[replica]), folder.path(), &[]).finish();
        assert_eq!(outcome.code, Some(2), "{}", outcome.errors);
        assert!(outcome.errors.contains(words), "{replica}: {}", outcome.errors);
        let runs = fs::read_dir(folder.path().join("runs")).map_or(0, Iterator::count);
        assert_eq!(runs, 0, "{replica}: a run was created");
    }
}

#[test]
fn a_coordinator_shows_the_status_of_replicas_and_does_not_resume_a_replica() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let _node = cluster.agent("east", 1);
    let elsewhere = tempfile::tempdir().unwrap();
    let store = elsewhere.path().join("runs");
    let spec = Spec { checkpoint: format!("replicas = [{store:?}]"), ..Spec::small(2000) };
    let run = cluster.submit(&spec);
    let status = cluster.until(&run, "a checkpoint in the replica", |status| {
        status["replicas"][0]["checkpoint"].as_u64() >= Some(10)
    });
    assert!(status["replicas"][0]["steps_behind"].is_u64(), "{status:#}");
    let shown = cluster.call(&["status", &run]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("replica") && shown.contains(store.to_str().unwrap()), "{shown}");
    assert!(shown.contains("every") && shown.contains("10 steps"), "{shown}");

    // A coordinator over the replica's store lists the run and does not resume it.
    let other = Cluster::start(elsewhere.path());
    let copy = other.status(&run);
    assert_eq!(copy["phase"], "stopped", "{copy:#}");
    assert!(copy["detail"].as_str().unwrap().starts_with("a replica of file://"), "{copy:#}");
    let before = cluster.status(&run)["step"].as_u64();
    cluster.until(&run, "another step", |status| status["step"].as_u64() > before);
    assert_eq!(cluster.status(&run)["phase"], "training");
    assert_eq!(other.stop(), Some(0));
    assert_eq!(cluster.stop(), Some(0));
}

/// Creates a run in a store, for the next coordinator to resume, and returns its id.
async fn submitted(store: &Store, spec: &Spec, folder: &Path, name: &str) -> String {
    let text = fs::read_to_string(spec.write(folder)).unwrap();
    store.run(&name.parse().unwrap()).create(&text, HostedBy::Service).await.unwrap();
    name.to_owned()
}

#[tokio::test]
async fn a_replica_that_never_answers_delays_no_other_run_and_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("runs").to_str().unwrap()).unwrap();
    // The operating system accepts connections; no program answers them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let replica = format!("s3://lab/runs?endpoint=http://{address}&region=us-east-1");
    let mut delayed = Vec::new();
    for name in ["first", "second", "third"] {
        delayed.push(submitted(&store, &replicated(20, &[&replica]), folder.path(), name).await);
    }
    let free = submitted(&store, &Spec::small(20), folder.path(), "undelayed").await;

    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name, "any".to_owned()));
    let mut cluster =
        Cluster::start_over(folder.path(), folder.path().join("runs").to_str().unwrap(), keys.into());
    let _node = cluster.agent("east", 1);
    cluster.until(&free, "a step", |status| status["step"].as_u64() >= Some(1));
    for run in &delayed {
        let status = cluster.status(run);
        let detail = status["detail"].as_str().unwrap();
        assert!(status["phase"] == "waiting" && detail.contains("is being adopted"), "{status:#}");
    }
    // A stop request waits until the run is resumed, and then stops it.
    let stopped = cluster.call(&["stop", &delayed[0]]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    cluster.until(&delayed[0], "its stop", |status| {
        ["stopping", "stopped"].iter().any(|phase| status["phase"] == *phase)
    });
    for run in &delayed[1..] {
        cluster.until(run, "a term", |status| status["epoch"] == 1);
    }
    cluster.until_phase(&free, "finished");
    // The coordinator's end is not delayed either, and it warns that the replica is behind.
    let coordinator = cluster.coordinator_mut();
    coordinator.signal(Signal::TERM);
    assert_eq!(coordinator.wait(Duration::from_secs(120)).code(), Some(0), "{}", coordinator.errors());
    let errors = coordinator.errors();
    assert!(errors.contains("is not up to date with the run") && errors.contains(&replica[..9]), "{errors}");
}
