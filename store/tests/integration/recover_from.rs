//! What a run's directory lost is recovered from a copy, and nothing else is.
use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use crate::support::{
    SMALL_PACKS, Scene, State, checkpoint,
    checkpoints::{assert_whole, damage_newest, finished, steps, stopped, with_checkpoints},
};
use whimbrel_state::Hash;
use whimbrel_store::{
    CheckpointSelection, CopyError, Record, Relation, ReplicaLogError, Replicator, Retention, RunDir,
    Unreplicated, is_ahead, plan_copy, quarantine, recover_from, relation,
};

const KEEP_TWO: Retention =
    Retention { last: 2, every: None, grace: Duration::from_secs(3600), in_flight: Vec::new() };

/// The run's store loses all files except these.
fn fall_back_to(known: &HashMap<String, PathBuf>, scene: &Scene) {
    for (_, lost) in scene.files("").into_iter().filter(|(name, _)| !known.contains_key(name)) {
        fs::remove_file(lost).unwrap();
    }
}

async fn copy(source: &RunDir, destination: &RunDir, selection: CheckpointSelection) {
    let plan = plan_copy(source, destination, selection).await.unwrap();
    plan.execute("a copy", &SMALL_PACKS, &mut |_| {}).await.unwrap();
}

/// A run whose store fell back to step 10, and a copy of it that also has the checkpoints of steps 20 and 30 and this
/// outcome.
async fn fallen_back(outcome: Record) -> (Scene, Scene) {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let known = scene.files("");
    for step in [20, 30] {
        checkpoint(&mut term, &State::small(step as u8), step).await;
    }
    term.append(outcome).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await;
    fall_back_to(&known, &scene);
    (scene, there)
}

#[tokio::test]
async fn what_the_source_lost_is_recovered_from_its_copy_under_the_next_term() {
    let (scene, mut term) = with_checkpoints(&[10, 20]).await;
    let known = scene.files("");
    checkpoint(&mut term, &State::small(30), 30).await;
    term.append(stopped(30)).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await;
    let made = scene.run().run_log().await.unwrap().checkpoints().pop().unwrap();
    drop(term);
    fall_back_to(&known, &scene);
    assert_eq!(steps(&scene.run()).await, [10, 20]);

    let mut next = scene.run().start_term("next").await.unwrap();
    let recovered = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!((&recovered.committed[..], recovered.skipped.len()), (&[30][..], 0));
    assert_whole(&scene.run()).await;
    let found = next.run_log().checkpoints().pop().unwrap();
    assert_eq!((&found.manifest, found.origin), (&made.manifest, made.origin));
    assert_eq!(next.run_log().stopped().unwrap().step, 30);
    // The second time there is nothing to recover.
    let entries = next.run_log().next_number();
    recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.run_log().next_number(), entries);

    // The copy is behind now. The next replication updates it.
    let theirs = there.run().run_log().await.unwrap();
    assert_eq!(relation(next.run_log(), &theirs), Relation::Behind);
    next.append(Record::Resumed { step: 30 }).await.unwrap();
    checkpoint(&mut next, &State::small(40), 40).await;
    let mut replicator = Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    replicator.replicate(next.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(
        (steps(&there.run()).await, there.run().run_log().await.unwrap().stopped()),
        (vec![30, 40], None)
    );
    assert_whole(&there.run()).await;
    // That the copy was stopped is older than the resumption here.
    recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.run_log().stopped(), None);
}

#[tokio::test]
async fn if_the_newest_is_damaged_in_the_copy_the_one_before_it_is_recovered() {
    let (scene, there) = fallen_back(stopped(30)).await;
    damage_newest(&there).await;

    let mut next = scene.run().start_term("next").await.unwrap();
    let recovered = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(recovered.committed, [20]);
    assert_eq!(recovered.skipped.iter().map(|left_out| left_out.step).collect::<Vec<_>>(), [30]);
    assert_eq!(steps(&scene.run()).await, [10, 20]);
    assert_whole(&scene.run()).await;
    assert_eq!(next.run_log().stopped().unwrap().step, 30);
}

#[tokio::test]
async fn a_run_whose_last_checkpoint_is_damaged_everywhere_has_not_finished_and_goes_on() {
    let (scene, there) = fallen_back(finished(30)).await;
    assert_eq!(there.run().run_log().await.unwrap().ended().unwrap().step, 30);
    damage_newest(&there).await;

    let mut next = scene.run().start_term("next").await.unwrap();
    let recovered = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!((&recovered.committed[..], recovered.skipped.len()), (&[20][..], 1));
    assert!(recovered.moved.packs.objects > 0 && recovered.bad.objects == 1, "{recovered:?}");
    assert!(next.run_log().ended().is_none());

    // The updated copy does not say that the run has finished, either.
    checkpoint(&mut next, &State::small(25), 25).await;
    let mut replicator = Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    replicator.replicate(next.run_log(), &mut |_| {}).await.unwrap();
    let mut after = scene.run().start_term("after").await.unwrap();
    assert!(!is_ahead(&there.run().run_log().await.unwrap(), after.run_log()));
    recover_from(&mut after, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert!(after.run_log().ended().is_none());
}

#[tokio::test]
async fn a_checkpoint_of_a_later_format_is_an_error_and_not_skipped() {
    let (scene, mut term) = with_checkpoints(&[10, 20]).await;
    let known = scene.files("");
    let newest = term.run_log().checkpoints().pop().unwrap();
    let manifest = fs::read_to_string(scene.files("manifests").remove(&newest.manifest).unwrap()).unwrap();
    let format = format!("\"format\":{}", whimbrel_state::manifest::FORMAT);
    let later = manifest.replacen(&format, "\"format\":99", 1);
    assert_ne!(manifest, later);
    let name = format!("manifests/000000000030-{}.json", Hash::of(later.as_bytes()));
    fs::write(scene.folder().join("r").join(&name), later).unwrap();
    let (bytes, state) = (newest.bytes, newest.state);
    let record = Record::Checkpoint { step: 30, manifest: name, bytes, state, origin: None };
    term.append(record).await.unwrap();
    drop(term);
    let there = Scene::empty();
    for (name, path) in scene.files("") {
        let copied = there.folder().join("r").join(name);
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        fs::copy(path, copied).unwrap();
    }
    fall_back_to(&known, &scene);

    let mut next = scene.run().start_term("next").await.unwrap();
    let refused = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(&refused, CopyError::Unreadable { step: 30, source } if !source.is_damage()),
        "{refused}"
    );
    assert!(is_ahead(&there.run().run_log().await.unwrap(), next.run_log()));
}

#[tokio::test]
async fn a_checkpoint_of_an_unreachable_replica_is_reported_as_unreplicated_when_it_is_back() {
    let (scene, there) = fallen_back(stopped(30)).await;
    // The replica is out of reach, and the run goes on from step 10.
    let mut next = scene.run().start_term("next").await.unwrap();
    next.append(Record::Resumed { step: 10 }).await.unwrap();
    for step in [15, 18] {
        checkpoint(&mut next, &State::small(step as u8), step).await;
    }
    let replicator = || Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    let mut first = replicator();
    let lag = first.replicate(next.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(
        (lag.newest, &lag.unreplicated[..]),
        (Some(18), &[Unreplicated::Checkpoint { step: 30 }, Unreplicated::Stopped][..])
    );
    let lag = first.replicate(next.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(lag.unreplicated, [], "it is reported once");

    // A replica that the run has recovered from or replicated to has nothing that the run lacks.
    let after = scene.run().start_term("after").await.unwrap();
    let lag = replicator().replicate(after.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(lag.unreplicated, []);
}

#[tokio::test]
async fn a_lost_run_outcome_is_recovered_even_if_no_checkpoint_was_lost() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let known = scene.files("");
    term.append(stopped(10)).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await;
    drop(term);
    fall_back_to(&known, &scene);
    let (here, copied) = (scene.run().run_log().await.unwrap(), there.run().run_log().await.unwrap());
    assert!(here.stopped().is_none() && is_ahead(&copied, &here));
    let mut next = scene.run().start_term("next").await.unwrap();
    recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.run_log().stopped().unwrap().step, 10);
    assert!(!is_ahead(&copied, next.run_log()));
    // A copy is not ahead because of a checkpoint that is quarantined here.
    let (scene, mut term) = with_checkpoints(&[10, 20]).await;
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await;
    let newest = term.run_log().checkpoints().pop().unwrap();
    quarantine(&mut term, &newest.manifest, "a test", &[]).await.unwrap();
    assert!(!is_ahead(&there.run().run_log().await.unwrap(), term.run_log()));
}

#[tokio::test]
async fn nothing_is_recovered_from_a_directory_that_was_resumed() {
    let (scene, mut term) = with_checkpoints(&[10, 20]).await;
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await;
    let mut resumed = there.run().start_term("elsewhere").await.unwrap();
    checkpoint(&mut resumed, &State::small(25), 25).await;
    let error = recover_from(&mut term, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, CopyError::Replica(ReplicaLogError::WentOn { .. })), "{error}");
    let mut next = scene.run().start_term("next").await.unwrap();
    let error = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, CopyError::Replica(ReplicaLogError::Diverged { .. })), "{error}");
    assert_eq!(steps(&scene.run()).await, [10, 20]);
    // An older copy has no newer checkpoint and an older outcome.
    next.append(stopped(20)).await.unwrap();
    let older = Scene::empty();
    copy(&scene.run(), &older.run(), CheckpointSelection::Step(10)).await;
    let mut last = scene.run().start_term("last").await.unwrap();
    last.append(Record::Resumed { step: 20 }).await.unwrap();
    let entries = last.run_log().next_number();
    recover_from(&mut last, &older.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(last.run_log().next_number(), entries);
}
