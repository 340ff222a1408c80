//! A run kept in other stores behind the one it is in: a store that is lost costs nothing but time, and a run that went
//! on in one store goes on in no other. The stores are folders here, which lose their files as thoroughly as any.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what goes wrong in a test is to fail it, and what is skipped is to be said"
)]

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
    out_of_reach::OutOfReach,
    process,
    run::{Outcome, Run, undisturbed},
    spec::Spec,
};
use whimbrel_store::{Mode, Store};

/// So many that a run is not over by the time that a test has seen what it waits for, however busy the machine.
const STEPS: u64 = 600;

/// A run in the store `runs` with these replicas, all in the same folder.
fn replicated(steps: u64, replicas: &[&str]) -> Spec {
    Spec { more: format!("replicas = {replicas:?}"), ..Spec::small(steps) }
}

/// The BLAKE3 of a run of one store that nobody disturbs.
fn oracle(steps: u64) -> String {
    undisturbed(&Spec::small(steps), &["--workers", "1"]).state()
}

/// Reads on until a replica has the checkpoint of this step, or a later one.
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

/// The run's name.
fn name(folder: &Path, store: &str) -> String {
    directory(folder, store).file_name().unwrap().to_str().unwrap().to_owned()
}

/// Takes the run up in a store of the folder, by its URI.
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
fn a_run_whose_store_is_lost_goes_on_from_its_replica_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(STEPS, &["west", "south"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    let step = until_replicated(&mut run, "west", 20)["checkpoint"].as_u64().unwrap();
    run.kill_all();
    fs::remove_dir_all(folder.path().join("runs")).unwrap();

    let resumed = resume(&spec, folder.path(), "west", "3").finish();
    assert_eq!(resumed.state(), oracle(STEPS));
    let first = resumed.steps()[0];
    assert!(first > step, "step {first} is done again though step {step} was saved");
    // What was lost is in step again, and so is the other replica: the run ended in all three.
    let ended = resumed.last();
    let stands: Vec<_> = ended["replicas"].as_array().unwrap().iter().collect();
    assert_eq!(stands.len(), 2, "{ended:#}");
    for stand in stands {
        assert_eq!((&stand["in_step"], &stand["checkpoint"]), (&true.into(), &STEPS.into()), "{stand:#}");
    }
    for store in ["runs", "west", "south"] {
        // What a replica no longer keeps may go after the run has ended.
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
fn what_is_damaged_in_the_store_is_read_from_the_replica_and_put_back() {
    let folder = tempfile::tempdir().unwrap();
    // The next checkpoint is far off when this one has arrived: what is lost in the store is in the replica.
    let spec = Spec { checkpoint_every: STEPS / 2, ..replicated(STEPS, &["west"]) };
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut run, "west", STEPS / 2);
    run.kill_all();
    fs::remove_dir_all(directory(folder.path(), "runs").join("packs")).unwrap();
    fs::remove_dir_all(directory(folder.path(), "runs").join("manifests")).unwrap();

    let resumed = Run::start(&spec, folder.path(), &["--workers", "2"]).finish();
    assert_eq!(resumed.state(), oracle(STEPS));
    assert!(resumed.steps()[0] > STEPS / 2, "the checkpoint was given up: {:?}", resumed.steps());
    assert!(warned(&resumed, "are whole there again"), "nothing was said of it: {:#?}", resumed.events);
    assert!(!warned(&resumed, "quarantined"), "a checkpoint that a replica has is not damaged");
}

#[test]
fn a_coordinator_that_slept_while_the_run_went_on_elsewhere_is_fenced() {
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

    // The other one is not bothered, and what it replicates over the first one's directory is the only lineage there is.
    let second = second.finish();
    assert_eq!(second.state(), oracle(steps));
    assert!(second.steps().into_iter().is_sorted_by(|one, next| one < next), "a step was done twice");
    assert!(second.steps().contains(&(at + 1)));
    assert_eq!(second.last()["replicas"][0]["in_step"], true, "{:#}", second.last());
}

#[test]
fn a_run_is_taken_up_where_it_went_on_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(400, &["west"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "1"]);
    until_replicated(&mut run, "west", 20);
    run.kill_all();
    // The store is out of reach while the run goes on in the other.
    let (store, away) = (folder.path().join("runs"), folder.path().join("away"));
    fs::rename(&store, &away).unwrap();
    fs::write(&store, "no folder").unwrap();
    let mut run = resume(&spec, folder.path(), "west", "1");
    run.until("a word on the store that cannot be opened", |event| {
        event["event"] == "warning" && event["text"].as_str().unwrap().contains("does not come into step")
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
    assert_eq!(finished.last()["replicas"][0]["in_step"], true, "{:#}", finished.last());
}

#[test]
fn a_replica_taken_up_while_the_store_is_there_loses_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(400, &["west"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "1"]);
    until_replicated(&mut run, "west", 10);
    // The replica is out of reach for a while, and lags.
    let west = OutOfReach::put(folder.path().join("west"));
    let newest = run.until_checkpoint(60)["step"].as_u64().unwrap();
    run.kill_all();
    west.back();

    let resumed = resume(&spec, folder.path(), "west", "2").finish();
    assert_eq!(resumed.state(), oracle(400));
    assert!(
        resumed.steps()[0] > newest,
        "the store's newer checkpoint is not used: {:?}",
        resumed.steps()[0]
    );
}

#[test]
fn what_a_store_that_fell_back_to_an_earlier_state_lost_comes_back_from_the_replica() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec { checkpoint_every: 200, ..replicated(STEPS, &["west"]) };
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut run, "west", 400);
    run.kill_all();
    // All that was written from the commit of step 400 on is gone, its manifest and its packs too.
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
    assert_eq!(resumed.last()["replicas"][0]["in_step"], true, "{:#}", resumed.last());
}

#[test]
fn a_replica_out_of_reach_holds_up_nobody_and_is_named_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let spec = replicated(200, &["west", "south"]);
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut run, "west", 10);
    OutOfReach::put(folder.path().join("west"));
    let outcome = run.finish();
    assert_eq!(outcome.state(), oracle(200));
    let replicas = outcome.last()["replicas"].as_array().unwrap();
    let stands = |name: &str| {
        replicas.iter().find(|replica| replica["replica"].as_str().unwrap().contains(name)).unwrap().clone()
    };
    assert_eq!(stands("/south/")["in_step"], true, "{replicas:#?}");
    assert_eq!(stands("/west/")["in_step"], false, "{replicas:#?}");
    assert!(stands("/west/")["trouble"].is_string(), "{replicas:#?}");
    assert!(warned(&outcome, "is not in step with the run, which has ended"), "{:#?}", outcome.events.last());
}

#[test]
fn replicas_that_will_not_do_are_refused_in_words_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "no folder").unwrap();
    for (replica, words) in [
        ("file", "cannot be opened"),
        ("./runs", "the run's own store under another name"),
        ("ftp://west", "there is no store of the kind"),
    ] {
        let outcome = Run::start(&replicated(STEPS, &[replica]), folder.path(), &[]).finish();
        assert_eq!(outcome.code, Some(2), "{}", outcome.errors);
        assert!(outcome.errors.contains(words), "{replica}: {}", outcome.errors);
        let runs = fs::read_dir(folder.path().join("runs")).map_or(0, Iterator::count);
        assert_eq!(runs, 0, "{replica}: nothing is half-done");
    }
}

#[test]
fn a_coordinator_tells_how_replicas_stand_and_takes_up_no_copy_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let _node = cluster.agent("east", 1);
    let elsewhere = tempfile::tempdir().unwrap();
    let store = elsewhere.path().join("runs");
    let spec = Spec { more: format!("replicas = [{store:?}]"), ..Spec::small(2000) };
    let run = cluster.submit(&spec);
    let status = cluster.until(&run, "a checkpoint in the replica", |status| {
        status["replicas"][0]["checkpoint"].as_u64() >= Some(10)
    });
    assert!(status["replicas"][0]["steps_behind"].is_u64(), "{status:#}");
    let shown = cluster.call(&["status", &run]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("replica") && shown.contains(store.to_str().unwrap()), "{shown}");
    assert!(shown.contains("every") && shown.contains("10 steps"), "{shown}");

    // A coordinator over the copies lists the run, and leaves it alone.
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

/// The run's spec, in a run of that name to be taken up by whichever coordinator comes.
async fn submitted(store: &Store, spec: &Spec, folder: &Path, name: &str) -> String {
    let text = fs::read_to_string(spec.write(folder)).unwrap();
    store.run(&name.parse().unwrap()).create(&text, Mode::Service).await.unwrap();
    name.to_owned()
}

#[tokio::test]
async fn a_replica_that_never_answers_holds_up_no_other_run_and_no_question() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("runs").to_str().unwrap()).unwrap();
    // Connections are taken by the operating system, and nobody ever says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let replica = format!("s3://lab/runs?endpoint=http://{address}&region=us-east-1");
    let mut held_up = Vec::new();
    for name in ["first", "second", "third"] {
        held_up.push(submitted(&store, &replicated(20, &[&replica]), folder.path(), name).await);
    }
    let free = submitted(&store, &Spec::small(20), folder.path(), "unhindered").await;

    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name, "any".to_owned()));
    let mut cluster =
        Cluster::start_over(folder.path(), folder.path().join("runs").to_str().unwrap(), keys.into());
    let _node = cluster.agent("east", 1);
    cluster.until(&free, "a step", |status| status["step"].as_u64() >= Some(1));
    for run in &held_up {
        let status = cluster.status(run);
        let detail = status["detail"].as_str().unwrap();
        assert!(status["phase"] == "waiting" && detail.contains("is being adopted"), "{status:#}");
    }
    // What is wanted of one waits until it is here, and is done then.
    let stopped = cluster.call(&["stop", &held_up[0]]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    cluster.until(&held_up[0], "its stop", |status| {
        ["stopping", "stopped"].iter().any(|phase| status["phase"] == *phase)
    });
    for run in &held_up[1..] {
        cluster.until(run, "a term", |status| status["epoch"] == 1);
    }
    cluster.until_phase(&free, "finished");
    // Nor does it hold up the end of the coordinator, which says what the replica lacks.
    let coordinator = cluster.coordinator_mut();
    coordinator.signal(Signal::TERM);
    assert_eq!(coordinator.wait(Duration::from_secs(120)).code(), Some(0), "{}", coordinator.errors());
    let errors = coordinator.errors();
    assert!(errors.contains("is not in step with the run") && errors.contains(&replica[..9]), "{errors}");
}
