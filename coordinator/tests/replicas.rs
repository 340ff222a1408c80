//! Replicas, through calls over real sockets: which are refused, their status, and which coordinator may lead a run that is in
//! several stores. No test needs a worker: a run that waits for nodes is in its replicas too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "an error in a test must fail it")]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tonic::{Code, Streaming, transport::Channel};
use whimbrel_coordinator::{Coordinator, Settings};
use whimbrel_core::Timing;
use whimbrel_proto::v1::{
    self, ReplicaStatus, RunEvent, RunStatus, run_event::Event, runs_client::RunsClient, submit_request::What,
};
use whimbrel_state::{Layout, Manifest, TensorSpec, manifest::FORMAT};
use whimbrel_store::{
    CheckpointSelection, Ended, HostedBy, Limits, Outcome, Record, Relation, Store, commit, plan_copy,
    relation, save_slice,
};

/// A coordinator over the folder `name`, and a client of it.
async fn start(folder: &Path, name: &str) -> (Coordinator, RunsClient<Channel>) {
    let settings = Settings {
        store: store(folder, name),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token: None,
        adopt: true,
        timing: Timing::default(),
    };
    let coordinator = Coordinator::start(settings).await.unwrap();
    let address = format!("http://{}", coordinator.address());
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    (coordinator, RunsClient::new(channel))
}

fn store(folder: &Path, name: &str) -> Store {
    Store::open(folder.join(name).to_str().unwrap()).unwrap()
}

fn spec(folder: &Path, replicas: &[&str]) -> What {
    let replicas: Vec<_> = replicas.iter().map(|name| folder.join(name)).collect();
    What::Spec(format!(
        "name = \"t\"\ncommand = [\"true\"]\n[train]\nsteps = 4\nglobal_batch = 4\nshards = 2\n\
         [checkpoint]\nreplicas = {replicas:?}\n"
    ))
}

async fn submit(runs: &mut RunsClient<Channel>, what: What) -> String {
    runs.submit(v1::SubmitRequest { what: Some(what) }).await.unwrap().into_inner().run
}

async fn refused(runs: &mut RunsClient<Channel>, what: What) -> String {
    let status = runs.submit(v1::SubmitRequest { what: Some(what) }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    status.message().to_owned()
}

async fn status(runs: &mut RunsClient<Channel>, run: &str) -> RunStatus {
    runs.get(v1::GetRequest { run: run.to_owned() }).await.unwrap().into_inner()
}

/// Polls a run's status until its replicas are as wanted.
async fn until_replicas(
    runs: &mut RunsClient<Channel>,
    run: &str,
    wanted: impl Fn(&[ReplicaStatus]) -> bool,
) {
    until_status(runs, run, |status| wanted(&status.replicas)).await;
}

/// Polls a run's status until it is as wanted.
async fn until_status(runs: &mut RunsClient<Channel>, run: &str, wanted: impl Fn(&RunStatus) -> bool) {
    let asking = async {
        while !wanted(&status(runs, run).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), asking).await.unwrap();
}

async fn watch(runs: &mut RunsClient<Channel>, run: &str) -> Streaming<RunEvent> {
    runs.watch(v1::WatchRequest { run: run.to_owned() }).await.unwrap().into_inner()
}

/// Reads events to the end.
async fn to_the_end(mut events: Streaming<RunEvent>) -> (v1::EndedEvent, Vec<String>) {
    let mut warnings = Vec::new();
    let mut last = None;
    while let Some(RunEvent { event }) = events.message().await.unwrap() {
        if let Some(Event::Warning(warning)) = &event {
            warnings.push(warning.text.clone());
        }
        last = event;
    }
    let Some(Event::Ended(ended)) = last else { panic!("the last event is {last:?}") };
    (ended, warnings)
}

fn up_to_date(replicas: &[ReplicaStatus]) -> bool {
    !replicas.is_empty() && replicas.iter().all(|replica| replica.up_to_date)
}

/// Makes a folder unreachable; the returned function makes it reachable again.
fn out_of_reach(folder: &Path, name: &str) -> impl FnOnce() + use<> {
    let (path, away) = (folder.join(name), folder.join(format!("{name}-away")));
    fs::write(&away, "no folder").unwrap();
    exchange(&path, &away);
    move || exchange(&path, &away)
}

/// Exchanges two paths atomically, while a coordinator may be using them.
fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

#[tokio::test]
async fn a_run_with_unusable_replicas_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut runs) = start(folder.path(), "runs").await;
    fs::write(folder.path().join("file"), "").unwrap();
    let message = refused(&mut runs, spec(folder.path(), &["west", "file"])).await;
    assert!(message.contains("file cannot be opened; correct `replicas` under [checkpoint]"), "{message}");
    let message = refused(&mut runs, spec(folder.path(), &["west/../runs"])).await;
    assert!(message.contains("is the run's own store under another name"), "{message}");
    let message = refused(&mut runs, spec(folder.path(), &["west", "west/../west"])).await;
    assert!(message.contains("is another replica under another name"), "{message}");
    for store in ["runs", "west"] {
        let left: Vec<_> = fs::read_dir(folder.path().join(store)).unwrap().collect();
        assert!(left.is_empty(), "{store}: {left:?}");
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn replicas_have_a_run_from_its_submission_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut runs) = start(folder.path(), "runs").await;
    let run = submit(&mut runs, spec(folder.path(), &["west", "south"])).await;
    until_replicas(&mut runs, &run, up_to_date).await;
    let events = watch(&mut runs, &run).await;
    runs.cancel(v1::CancelRequest { run: run.clone() }).await.unwrap();
    let (ended, warnings) = to_the_end(events).await;
    assert!(up_to_date(&ended.replicas) && ended.replicas.len() == 2, "{ended:?}");
    assert!(warnings.is_empty(), "{warnings:?}");
    let id = run.parse().unwrap();
    let here = store(folder.path(), "runs").run(&id).run_log().await.unwrap();
    for name in ["west", "south"] {
        let there = store(folder.path(), name).run(&id).run_log().await.unwrap();
        assert_eq!(there.ended(), here.ended(), "{name}");
        assert_eq!(relation(&here, &there), Relation::Same);
        assert_eq!(there.replica_of().unwrap().source, store(folder.path(), "runs").run(&id).uri());
        // The spec has canonical URIs, which mean the same wherever the run is taken over.
        assert!(there.spec().contains(&format!("store = {:?}", store(folder.path(), "runs").uri())));
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_replica_is_not_adopted_but_can_be_resumed_and_then_leads_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (first, mut at_first) = start(folder.path(), "runs").await;
    let run = submit(&mut at_first, spec(folder.path(), &["west"])).await;
    until_replicas(&mut at_first, &run, up_to_date).await;
    let events = watch(&mut at_first, &run).await;

    let (second, mut at_second) = start(folder.path(), "west").await;
    let listed = at_second.list(v1::ListRequest {}).await.unwrap().into_inner().runs;
    let uri = store(folder.path(), "runs").run(&run.parse().unwrap()).uri().to_owned();
    assert_eq!((listed[0].phase(), &listed[0].detail), (v1::Phase::Stopped, &format!("a replica of {uri}")));
    assert_eq!(status(&mut at_first, &run).await.epoch, 1, "the second coordinator must not start a term");

    // Resumed, the run goes on there; the first store is its replica now, and the first coordinator is fenced.
    submit(&mut at_second, What::Resume(run.clone())).await;
    until_replicas(&mut at_second, &run, up_to_date).await;
    assert_eq!(status(&mut at_second, &run).await.replicas[0].uri, uri);
    // The first coordinator notices at the latest when it writes to the log.
    at_first.cancel(v1::CancelRequest { run: run.clone() }).await.ok();
    let (ended, _) = to_the_end(events).await;
    assert_eq!(ended.phase(), v1::Phase::Stopped);
    assert!(ended.reason.contains("fenced"), "{}", ended.reason);
    assert_eq!(status(&mut at_second, &run).await.phase(), v1::Phase::Waiting);

    // A new coordinator over the first store does not adopt it.
    first.stop().await;
    let (first, mut at_first) = start(folder.path(), "runs").await;
    let listed = at_first.list(v1::ListRequest {}).await.unwrap().into_inner().runs;
    assert!(listed[0].detail.starts_with("a replica of "), "{:?}", listed[0]);
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_run_that_went_on_in_a_replica_is_not_adopted_in_its_first_store() {
    let folder = tempfile::tempdir().unwrap();
    let (first, mut runs) = start(folder.path(), "runs").await;
    let run = submit(&mut runs, spec(folder.path(), &["west"])).await;
    until_replicas(&mut runs, &run, up_to_date).await;
    first.stop().await;
    // The store is out of reach while the run goes on in the replica.
    let restore = out_of_reach(folder.path(), "runs");
    let (second, mut at_second) = start(folder.path(), "west").await;
    submit(&mut at_second, What::Resume(run.clone())).await;
    second.stop().await;
    restore();

    let (first, mut runs) = start(folder.path(), "runs").await;
    // A request about the run waits until its logs are compared.
    let stop = runs.stop(v1::StopRequest { run: run.clone() }).await.unwrap_err();
    assert_eq!(stop.code(), Code::FailedPrecondition, "{stop}");
    let listed = runs.list(v1::ListRequest {}).await.unwrap().into_inner().runs;
    let west = store(folder.path(), "west").run(&run.parse().unwrap()).uri().to_owned();
    assert_eq!(listed[0].phase(), v1::Phase::Stopped);
    assert!(listed[0].detail.contains(&format!("went on at {west}")), "{}", listed[0].detail);
    let message = refused(&mut runs, What::Resume(run.clone())).await;
    assert!(message.contains(&format!("--resume {west}")), "{message}");
    first.stop().await;
}

#[tokio::test]
async fn a_lost_replica_is_reported_and_caught_up_later() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut runs) = start(folder.path(), "runs").await;
    let run = submit(&mut runs, spec(folder.path(), &["west"])).await;
    until_replicas(&mut runs, &run, up_to_date).await;
    coordinator.stop().await;

    let restore = out_of_reach(folder.path(), "west");
    let (coordinator, mut runs) = start(folder.path(), "runs").await;
    until_replicas(&mut runs, &run, |replicas| replicas.iter().any(|replica| !replica.problem.is_empty()))
        .await;
    let mut events = watch(&mut runs, &run).await;
    let warning = loop {
        if let Some(Event::Warning(warning)) = events.message().await.unwrap().unwrap().event {
            break warning.text;
        }
    };
    assert!(warning.contains("is not up to date") && warning.contains("west"), "{warning}");
    restore();
    until_replicas(&mut runs, &run, up_to_date).await;
    coordinator.stop().await;
}

#[tokio::test]
async fn a_run_does_not_go_on_while_a_newer_checkpoint_cannot_be_copied_from_a_replica() {
    let folder = tempfile::tempdir().unwrap();
    let (name, packs, away) = a_run_whose_newest_checkpoint_cannot_be_copied(folder.path()).await;
    let west = store(folder.path(), "west").run(&name.parse().unwrap());

    let (coordinator, mut runs) = start(folder.path(), "runs").await;
    let has = format!("{} has a checkpoint of step 2 of run t-1", west.uri());
    until_status(&mut runs, &name, |status| status.detail.contains(&has)).await;
    assert_eq!(status(&mut runs, &name).await.phase(), v1::Phase::Stopped);
    let message = refused(&mut runs, What::Resume(name.clone())).await;
    assert!(message.contains(&has) && message.contains(&format!("move {} away", west.uri())), "{message}");
    // Once the checkpoint can be copied, the run is adopted.
    exchange(&away, &packs);
    until_status(&mut runs, &name, |status| {
        status.phase() == v1::Phase::Waiting && status.checkpoint == Some(2)
    })
    .await;
    coordinator.stop().await;
}

#[tokio::test]
async fn a_coordinator_that_retries_an_adoption_leaves_the_run_to_one_that_started_a_term_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (name, packs, away) = a_run_whose_newest_checkpoint_cannot_be_copied(folder.path()).await;
    let here = store(folder.path(), "runs").run(&name.parse().unwrap());
    let (coordinator, mut runs) = start(folder.path(), "runs").await;
    until_status(&mut runs, &name, |status| status.detail.contains("has a checkpoint of step 2")).await;
    let mut other = here.start_term("the other").await.unwrap();
    exchange(&away, &packs);
    until_status(&mut runs, &name, |status| status.detail.contains("the other took the run over")).await;
    let refused = runs.cancel(v1::CancelRequest { run: name.clone() }).await.unwrap_err();
    assert!(refused.message().contains("the other took the run over"), "{refused}");
    // The run's end under the other coordinator is reported here.
    let (outcome, reason) = (Outcome::Failed, Some("a test".to_owned()));
    let ended = Ended { outcome, step: 0, loss: None, val_loss: None, state: None, reason };
    other.append(Record::Ended(ended)).await.unwrap();
    until_status(&mut runs, &name, |status| status.phase() == v1::Phase::Failed).await;
    coordinator.stop().await;
}

/// A run in the folders `runs` and `west`. The first has lost the only checkpoint; the second has it, but its packs cannot be
/// read: their folder is a link to itself. Returns the run's id, the link, and where the packs are.
async fn a_run_whose_newest_checkpoint_cannot_be_copied(folder: &Path) -> (String, PathBuf, PathBuf) {
    let What::Spec(text) = spec(folder, &["west"]) else { panic!("a spec") };
    let name = "t-1".to_owned();
    let [here, west] = ["runs", "west"].map(|at| store(folder, at).run(&name.parse().unwrap()));
    here.create(&text, HostedBy::Service).await.unwrap();
    let mut term = here.start_term("a test").await.unwrap();
    let layout = Layout::new(vec![TensorSpec::f32("w", [16])]).unwrap();
    let packs = save_slice(&here, &layout, 0..64, vec![7; 64].into(), &Limits::default()).await.unwrap();
    let manifest = Manifest {
        format: FORMAT,
        run: name.clone(),
        step: 2,
        generation: 1,
        samples: 8,
        fingerprint: Default::default(),
        layout,
        packs,
    };
    commit(&mut term, &manifest, None).await.unwrap();
    let plan = plan_copy(&here, &west, CheckpointSelection::All).await.unwrap();
    plan.execute("a test", &Limits::default(), &mut |_| {}).await.unwrap();
    drop(term);
    let lost = folder.join("runs/t-1");
    let mut log: Vec<_> =
        fs::read_dir(lost.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    log.sort();
    fs::remove_file(log.pop().unwrap()).unwrap();
    for lost in ["manifests", "packs"].map(|what| lost.join(what)) {
        fs::remove_dir_all(lost).unwrap();
    }
    let (packs, away) = (folder.join("west/t-1/packs"), folder.join("packs-away"));
    fs::rename(&packs, &away).unwrap();
    symlink(&packs, &packs).unwrap();
    (name, packs, away)
}

#[tokio::test]
async fn a_stop_that_only_a_lost_store_knows_does_not_stop_a_run_that_was_resumed_since() {
    let folder = tempfile::tempdir().unwrap();
    let (first, mut runs) = start(folder.path(), "runs").await;
    let run = submit(&mut runs, spec(folder.path(), &["west"])).await;
    until_replicas(&mut runs, &run, up_to_date).await;
    // The replica does not learn that the run was stopped, and the store is lost for a while.
    let restore_west = out_of_reach(folder.path(), "west");
    runs.stop(v1::StopRequest { run: run.clone() }).await.unwrap();
    until_status(&mut runs, &run, |status| status.phase() == v1::Phase::Stopped).await;
    first.stop().await;
    restore_west();
    let restore_runs = out_of_reach(folder.path(), "runs");
    let (second, mut at_second) = start(folder.path(), "west").await;
    submit(&mut at_second, What::Resume(run.clone())).await;
    second.stop().await;

    restore_runs();
    let (second, mut at_second) = start(folder.path(), "west").await;
    until_status(&mut at_second, &run, |status| status.phase() == v1::Phase::Waiting && status.epoch == 3)
        .await;
    until_replicas(&mut at_second, &run, up_to_date).await;
    second.stop().await;
}
