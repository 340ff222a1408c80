//! Tests of what the recorder does about checkpoints that a worker reports as damaged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use whimbrel_state::{Layout, TensorSpec, manifest::FORMAT};
use whimbrel_store::{CheckpointSelection, HostedBy, Limits, RunDir, Store, plan_copy, save_slice};

use super::*;
use crate::record::{replication::ReplicaConfig, report::TermReport};

fn run(folder: &Path, store: &str) -> RunDir {
    Store::open(folder.join(store).to_str().unwrap()).unwrap().run(&"r-1".parse().unwrap())
}

/// Commits a checkpoint, and returns its manifest's name and its only pack's file.
async fn checkpoint(term: &mut Term, folder: &Path, step: u64) -> (String, PathBuf) {
    let layout = Layout::new(vec![TensorSpec::f32("w", [16])]).unwrap();
    let state = vec![u8::try_from(step).unwrap(); 64];
    let packs = save_slice(term.run(), &layout, 0..64, state.into(), &Limits::default()).await.unwrap();
    let hash = packs[0].hash.to_string();
    let run = term.run().id().to_string();
    let manifest = Manifest {
        format: FORMAT,
        run,
        step,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    };
    let committed = commit(term, &manifest, None).await.unwrap();
    let pack = format!("runs/r-1/packs/{}/{hash}.safetensors", &hash[..2]);
    (committed.manifest, folder.join(pack))
}

/// A recorder at work, as the driver sees it.
struct Scene {
    requests: mpsc::UnboundedSender<Request>,
    reports: mpsc::UnboundedReceiver<TermReport>,
    _tasks: JoinSet<()>,
}

impl Scene {
    fn new(term: Term, folder: &Path) -> Self {
        let (driver, reports) = mpsc::unbounded_channel();
        let (sender, requests) = mpsc::unbounded_channel();
        let reporter = Reporter { run: term.run().id().clone(), epoch: term.epoch(), driver };
        let config = ReplicaConfig {
            run: term.run().clone(),
            coordinator: "a test".into(),
            retention: Retention::default(),
            limits: Limits::default(),
            reporter: reporter.clone(),
            shutdown: CancellationToken::new(),
        };
        let (replication, _) = Replication::new(&config, term.run_log(), Vec::new());
        let mut tasks = JoinSet::new();
        let sources = Sources::new(term.run().clone()).with_replica(run(folder, "west"));
        let recorder = Recorder::new(term, sources, Vec::new(), config.retention, replication, reporter);
        tasks.spawn(recorder.run(requests));
        Self { requests: sender, reports, _tasks: tasks }
    }

    /// Reports a checkpoint as damaged; returns the warning for watchers and the event for the core.
    async fn report_damage(&mut self, manifest: &str) -> (String, RunEvent) {
        let (manifest, reason) = (manifest.to_owned(), "pack 1 has another hash".to_owned());
        self.requests.send(Request::Quarantine { manifest, reason }).unwrap();
        let mut warning = String::new();
        loop {
            match self.reports.recv().await.unwrap().report {
                Report::Warning(text) => warning = text,
                Report::Event(event) => return (warning, event),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn at(step: u64, manifest: &str) -> RunEvent {
    RunEvent::Quarantined { start: Start::Checkpoint { step, manifest: manifest.to_owned() } }
}

#[tokio::test(start_paused = true)]
async fn only_a_checkpoint_that_is_damaged_in_every_store_is_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    let here = run(folder.path(), "runs");
    here.create("a spec", HostedBy::Service).await.unwrap();
    let mut term = here.start_term("a test").await.unwrap();
    let (older, older_pack) = checkpoint(&mut term, folder.path(), 10).await;
    let (newer, newer_pack) = checkpoint(&mut term, folder.path(), 20).await;
    let west = run(folder.path(), "west");
    let plan = plan_copy(&here, &west, CheckpointSelection::All).await.unwrap();
    plan.execute("a test", &Limits::default(), &mut |_| {}).await.unwrap();
    let mut scene = Scene::new(term, folder.path());

    // The replica has it whole: its packs are put back and it is used again, but not for ever.
    for _ in 0..FALSE_REPORTS {
        fs::write(&newer_pack, "damaged").unwrap();
        let (warning, event) = scene.report_damage(&newer).await;
        assert!(warning.contains("is whole now") && event == at(20, &newer), "{warning}: {event:?}");
        assert_ne!(fs::read(&newer_pack).unwrap(), b"damaged");
    }
    let (warning, event) = scene.report_damage(&newer).await;
    assert!(warning.contains("no worker can read it") && event == at(10, &older), "{warning}: {event:?}");
    assert_eq!(here.run_log().await.unwrap().checkpoints().len(), 2, "no quarantine is recorded");

    // No store has it whole: it is quarantined.
    let term = here.start_term("another").await.unwrap();
    let mut scene = Scene::new(term, folder.path());
    fs::write(&newer_pack, "damaged").unwrap();
    fs::write(
        folder.path().join("west").join(newer_pack.strip_prefix(folder.path().join("runs")).unwrap()),
        "x",
    )
    .unwrap();
    let (warning, event) = scene.report_damage(&newer).await;
    assert!(warning.contains("damaged in every store") && event == at(10, &older), "{warning}: {event:?}");
    assert_eq!(here.run_log().await.unwrap().checkpoints().len(), 1);

    // A store that does not answer may have it: nothing is recorded, and the run does not start from its beginning.
    fs::write(&older_pack, "damaged").unwrap();
    fs::remove_dir_all(folder.path().join("west")).unwrap();
    fs::write(folder.path().join("west"), "no folder").unwrap();
    let (_, event) = scene.report_damage(&older).await;
    let RunEvent::TermLost { reason } = event else { panic!("{event:?}") };
    assert!(reason.contains("there is none before it"), "{reason}");
    assert_eq!(here.run_log().await.unwrap().checkpoints().len(), 1);
}
