//! Every operation can be spawned: its future is `Send`.
use crate::support::{SMALL_PACKS, Scene, State, save};
use whimbrel_state::StateBytes;
use whimbrel_store::{
    CheckpointSelection, HostedBy, Replicator, Retention, collect, collectable, commit, plan_copy,
    quarantine, read_state, restore, restore_some, save_slice, verify,
};

/// Awaits a future that a multi-threaded runtime accepts.
async fn spawnable<T>(work: impl Future<Output = T> + Send) -> T {
    work.await
}

#[tokio::test]
async fn the_futures_of_a_whole_run_are_spawnable() {
    let scene = Scene::new().await;
    let run = scene.run();
    let state = State::small(1);
    spawnable(run.create("again", HostedBy::Service)).await.unwrap_err();
    let mut term = spawnable(run.start_term("c")).await.unwrap();
    let manifest = save(&run, &state, 5, 1).await.unwrap();
    let all = 0..state.bytes.len();
    let staged = state.staged(all.clone());
    let packs = spawnable(save_slice(&run, &state.layout, all, staged, &SMALL_PACKS)).await.unwrap();
    assert_eq!(packs, manifest.packs);
    let committed = spawnable(commit(&mut term, &manifest, None)).await.unwrap();
    let manifest = spawnable(run.manifest(&committed.manifest)).await.unwrap();
    let mut read = State::blank(&state.layout);
    let mut bytes = StateBytes::new(read.tensors()).unwrap();
    spawnable(restore(&run.clone().into(), &manifest, &mut bytes, &SMALL_PACKS)).await.unwrap();
    spawnable(restore_some(&run.clone().into(), &manifest, read.tensors(), &SMALL_PACKS)).await.unwrap();
    spawnable(read_state(&run.clone().into(), &manifest, 0..9, &SMALL_PACKS, |_| {})).await.unwrap();
    spawnable(verify(&run, &manifest, &SMALL_PACKS, |_| {})).await.unwrap();
    spawnable(collect(&mut term, &Retention::default())).await.unwrap();
    spawnable(quarantine(&mut term, &committed.manifest, "a test", &[])).await.unwrap();
    spawnable(run.put_output(1, 0, "text".into())).await.unwrap();
    spawnable(run.output()).await.unwrap();
    spawnable(term.check()).await.unwrap();
}

#[tokio::test]
async fn copies_are_spawnable_too() {
    let (scene, there, replica) = (Scene::new().await, Scene::empty(), Scene::empty());
    let run = scene.run();
    let mut term = run.start_term("c").await.unwrap();
    let manifest = save(&run, &State::small(1), 5, 1).await.unwrap();
    commit(&mut term, &manifest, None).await.unwrap();
    let copy = there.run();
    let plan = spawnable(plan_copy(&run, &copy, CheckpointSelection::All)).await.unwrap();
    let copied = Box::pin(spawnable(plan.execute("c", &SMALL_PACKS, &mut |_| {}))).await.unwrap();
    assert_eq!(copied.committed, [5]);
    let mut replicator = Replicator::new(&run, &replica.run(), "c", Retention::default(), SMALL_PACKS);
    Box::pin(spawnable(replicator.replicate(term.run_log(), &mut |_| {}))).await.unwrap();
    spawnable(collectable(&run, term.run_log(), &Retention::default())).await.unwrap();
    spawnable(copy.become_replica_of(&run, term.run_log(), "c")).await.unwrap();
}

#[tokio::test]
async fn a_store_is_opened_probed_and_listed_from_any_thread() {
    let folder = tempfile::tempdir().unwrap();
    let store = whimbrel_store::Store::open(folder.path().to_str().unwrap()).unwrap();
    spawnable(store.probe()).await.unwrap();
    assert_eq!(spawnable(store.runs()).await.unwrap(), []);
}
