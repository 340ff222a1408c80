//! What becomes of checkpoints that a worker takes for damaged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use whimbrel_state::{Layout, TensorSpec, manifest::FORMAT};
use whimbrel_store::{Limits, Mode, RunDir, Store, Which, plan_copy, save_slice};

use super::*;
use crate::record::replication::Keeping;

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
    let manifest = Manifest { format: FORMAT, run, step, generation: 1, samples: 1, layout, packs };
    let committed = commit(term, &manifest, None).await.unwrap();
    let pack = format!("runs/r-1/packs/{}/{hash}.safetensors", &hash[..2]);
    (committed.manifest, folder.join(pack))
}

/// A recorder at work, as the driver sees it.
struct Scene {
    orders: mpsc::UnboundedSender<Task>,
    said: mpsc::UnboundedReceiver<Input>,
    _tasks: JoinSet<()>,
}

impl Scene {
    fn new(term: Term, folder: &Path) -> Self {
        let (sender, said) = mpsc::unbounded_channel();
        let (orders, tasks) = mpsc::unbounded_channel();
        let inputs = Inputs(sender);
        let keeping = Keeping {
            run: term.run().clone(),
            epoch: term.epoch(),
            who: "a test".into(),
            retention: Retention::default(),
            limits: Limits::default(),
            inputs: inputs.clone(),
            shutdown: CancellationToken::new(),
        };
        let mut set = JoinSet::new();
        let replication = Replication::start(&keeping, term.run_log(), Vec::new(), &mut set);
        let sources = Sources::new(term.run().clone()).with_replica(run(folder, "west"));
        set.spawn(record(term, sources, Vec::new(), keeping.retention, replication, inputs, tasks));
        Self { orders, said, _tasks: set }
    }

    /// A worker says that a checkpoint is damaged: what watchers hear of it, and what the core.
    async fn is_said_to_be_damaged(&mut self, manifest: &str) -> (String, RunEvent) {
        let (manifest, reason) = (manifest.to_owned(), "pack 1 has another hash".to_owned());
        self.orders.send(Task::Quarantine { manifest, reason }).unwrap();
        let mut heard = String::new();
        loop {
            match self.said.recv().await.unwrap() {
                Input::Tell(_, _, v1::run_event::Event::Warning(warning)) => heard = warning.text,
                Input::OfTerm(_, _, event) => return (heard, event),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn at(step: u64, manifest: &str) -> RunEvent {
    RunEvent::Quarantined { start: Start::Checkpoint { step, manifest: manifest.to_owned() } }
}

#[tokio::test(start_paused = true)]
async fn only_what_no_store_has_whole_is_put_aside_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let here = run(folder.path(), "runs");
    here.create("a spec", Mode::Service).await.unwrap();
    let mut term = here.start_term("a test").await.unwrap();
    let (older, older_pack) = checkpoint(&mut term, folder.path(), 10).await;
    let (newer, newer_pack) = checkpoint(&mut term, folder.path(), 20).await;
    let west = run(folder.path(), "west");
    let plan = plan_copy(&here, &west, Which::All).await.unwrap();
    plan.carry_out("a test", &Limits::default(), &mut |_| {}).await.unwrap();
    let mut scene = Scene::new(term, folder.path());

    // What the replica has whole is put back and used again, though not for ever.
    for _ in 0..ACQUITTALS {
        fs::write(&newer_pack, "damaged").unwrap();
        let (heard, event) = scene.is_said_to_be_damaged(&newer).await;
        assert!(heard.contains("is whole by now") && event == at(20, &newer), "{heard}: {event:?}");
        assert_ne!(fs::read(&newer_pack).unwrap(), b"damaged");
    }
    let (heard, event) = scene.is_said_to_be_damaged(&newer).await;
    assert!(heard.contains("no worker can read it") && event == at(10, &older), "{heard}: {event:?}");
    assert_eq!(here.run_log().await.unwrap().checkpoints().len(), 2, "nothing is recorded of it");

    // What no store has whole is put aside.
    let term = here.start_term("another").await.unwrap();
    let mut scene = Scene::new(term, folder.path());
    fs::write(&newer_pack, "damaged").unwrap();
    fs::write(
        folder.path().join("west").join(newer_pack.strip_prefix(folder.path().join("runs")).unwrap()),
        "x",
    )
    .unwrap();
    let (heard, event) = scene.is_said_to_be_damaged(&newer).await;
    assert!(heard.contains("damaged in every store") && event == at(10, &older), "{heard}: {event:?}");
    assert_eq!(here.run_log().await.unwrap().checkpoints().len(), 1);

    // A store that does not answer may have it: nothing is recorded, and the run does not begin anew.
    fs::write(&older_pack, "damaged").unwrap();
    fs::remove_dir_all(folder.path().join("west")).unwrap();
    fs::write(folder.path().join("west"), "no folder").unwrap();
    let (_, event) = scene.is_said_to_be_damaged(&older).await;
    let RunEvent::TermLost { reason } = event else { panic!("{event:?}") };
    assert!(reason.contains("there is none before it"), "{reason}");
    assert_eq!(here.run_log().await.unwrap().checkpoints().len(), 1);
}
