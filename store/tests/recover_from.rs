//! What a directory lost of a run comes back from a copy, and nothing else does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use support::{
    SMALL_PACKS, Scene, State, checkpoint,
    checkpoints::{assert_whole, damage_newest, finished, steps, stopped, with_checkpoints},
};
use whimbrel_state::Hash;
use whimbrel_store::{
    CopyError, Record, Relation, ReplicaLogError, Replicator, Retention, RunDir, Unreplicated, Which,
    is_ahead, plan_copy, quarantine, recover_from, relation,
};

const KEEP_TWO: Retention =
    Retention { last: 2, every: None, grace: Duration::from_secs(3600), in_flight: Vec::new() };

/// The run's store loses all files but these.
fn fall_back_to(known: &HashMap<String, PathBuf>, scene: &Scene) {
    for (_, lost) in scene.files("").into_iter().filter(|(name, _)| !known.contains_key(name)) {
        fs::remove_file(lost).unwrap();
    }
}

async fn copy(source: &RunDir, destination: &RunDir, which: Which) {
    let plan = plan_copy(source, destination, which).await.unwrap();
    plan.carry_out("a copy", &SMALL_PACKS, &mut |_| {}).await.unwrap();
}

/// A run that fell back to step 10, and a copy of it that has those of steps 20 and 30 besides, and this last word.
async fn fallen_back(last_word: Record) -> (Scene, Scene) {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let known = scene.files("");
    for step in [20, 30] {
        checkpoint(&mut term, &State::small(step as u8), step).await;
    }
    term.append(last_word).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    fall_back_to(&known, &scene);
    (scene, there)
}

#[tokio::test]
async fn what_the_source_lost_is_brought_back_from_its_copy_under_the_next_office() {
    let (scene, mut term) = with_checkpoints(&[10, 20]).await;
    let known = scene.files("");
    checkpoint(&mut term, &State::small(30), 30).await;
    term.append(stopped(30)).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    let made = scene.run().run_log().await.unwrap().checkpoints().pop().unwrap();
    drop(term);
    fall_back_to(&known, &scene);
    assert_eq!(steps(&scene.run()).await, [10, 20]);

    let mut next = scene.run().start_term("next").await.unwrap();
    let brought = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!((&brought.committed[..], brought.left_out.len()), (&[30][..], 0));
    assert_whole(&scene.run()).await;
    let found = next.run_log().checkpoints().pop().unwrap();
    assert_eq!((&found.manifest, found.origin), (&made.manifest, made.origin));
    assert_eq!(next.run_log().stopped().unwrap().step, 30);
    // Once more, there is nothing to bring.
    let entries = next.run_log().next_number();
    recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.run_log().next_number(), entries);

    // The copy is behind by then, and gets in step.
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
    // What the copy was stopped by is an old word by now.
    recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.run_log().stopped(), None);
}

#[tokio::test]
async fn where_the_copys_newest_is_damaged_the_one_before_it_is_brought_back() {
    let (scene, there) = fallen_back(stopped(30)).await;
    damage_newest(&there).await;

    let mut next = scene.run().start_term("next").await.unwrap();
    let brought = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(brought.committed, [20]);
    assert_eq!(brought.left_out.iter().map(|left_out| left_out.step).collect::<Vec<_>>(), [30]);
    assert_eq!(steps(&scene.run()).await, [10, 20]);
    assert_whole(&scene.run()).await;
    assert_eq!(next.run_log().stopped().unwrap().step, 30);
}

#[tokio::test]
async fn a_run_whose_last_checkpoint_is_damaged_wherever_it_is_has_not_finished_and_goes_on() {
    let (scene, there) = fallen_back(finished(30)).await;
    assert_eq!(there.run().run_log().await.unwrap().ended().unwrap().step, 30);
    damage_newest(&there).await;

    let mut next = scene.run().start_term("next").await.unwrap();
    let brought = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!((&brought.committed[..], brought.left_out.len()), (&[20][..], 1));
    assert!(brought.moved.packs > 0 && brought.bad.packs == 1, "{brought:?}");
    assert!(next.run_log().ended().is_none());

    // Nor has it, by what its copy has to say, once that is in step with what it did since.
    checkpoint(&mut next, &State::small(25), 25).await;
    let mut replicator = Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    replicator.replicate(next.run_log(), &mut |_| {}).await.unwrap();
    let mut after = scene.run().start_term("after").await.unwrap();
    assert!(!is_ahead(&there.run().run_log().await.unwrap(), after.run_log()));
    recover_from(&mut after, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert!(after.run_log().ended().is_none());
}

#[tokio::test]
async fn a_checkpoint_of_a_later_format_is_no_damaged_one_and_not_gone_on_without() {
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
async fn a_run_that_went_on_without_a_checkpoint_of_its_replica_says_so_once_that_is_back() {
    let (scene, there) = fallen_back(stopped(30)).await;
    // The replica is out of reach, and the run goes on from step 10.
    let mut next = scene.run().start_term("next").await.unwrap();
    next.append(Record::Resumed { step: 10 }).await.unwrap();
    for step in [15, 18] {
        checkpoint(&mut next, &State::small(step as u8), step).await;
    }
    let replicator = || Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    let mut keeper = replicator();
    let lag = keeper.replicate(next.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(
        (lag.newest, &lag.unreplicated[..]),
        (Some(18), &[Unreplicated::Checkpoint { step: 30 }, Unreplicated::Stopped][..])
    );
    let lag = keeper.replicate(next.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(lag.unreplicated, [], "it is told once");

    // A replica of what the run has heard of has nothing that it went on without.
    let after = scene.run().start_term("after").await.unwrap();
    let lag = replicator().replicate(after.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(lag.unreplicated, []);
}

#[tokio::test]
async fn what_ended_is_known_by_its_copy_even_if_no_checkpoint_was_lost() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let known = scene.files("");
    term.append(stopped(10)).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    drop(term);
    fall_back_to(&known, &scene);
    let (here, copied) = (scene.run().run_log().await.unwrap(), there.run().run_log().await.unwrap());
    assert!(here.stopped().is_none() && is_ahead(&copied, &here));
    let mut next = scene.run().start_term("next").await.unwrap();
    recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.run_log().stopped().unwrap().step, 10);
    assert!(!is_ahead(&copied, next.run_log()));
    // A checkpoint that was found to be damaged here is no news.
    let (scene, mut term) = with_checkpoints(&[10, 20]).await;
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    let newest = term.run_log().checkpoints().pop().unwrap();
    quarantine(&mut term, &newest.manifest, "a test", &[]).await.unwrap();
    assert!(!is_ahead(&there.run().run_log().await.unwrap(), term.run_log()));
}

#[tokio::test]
async fn nothing_is_brought_back_from_where_the_run_went_on() {
    let (scene, mut term) = with_checkpoints(&[10, 20]).await;
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    let mut resumed = there.run().start_term("elsewhere").await.unwrap();
    checkpoint(&mut resumed, &State::small(25), 25).await;
    let error = recover_from(&mut term, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, CopyError::Replica(ReplicaLogError::WentOn { .. })), "{error}");
    let mut next = scene.run().start_term("next").await.unwrap();
    let error = recover_from(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, CopyError::Replica(ReplicaLogError::Diverged { .. })), "{error}");
    assert_eq!(steps(&scene.run()).await, [10, 20]);
    // An older copy has nothing to give, and an older word to say.
    next.append(stopped(20)).await.unwrap();
    let older = Scene::empty();
    copy(&scene.run(), &older.run(), Which::Step(10)).await;
    let mut last = scene.run().start_term("last").await.unwrap();
    last.append(Record::Resumed { step: 20 }).await.unwrap();
    let entries = last.run_log().next_number();
    recover_from(&mut last, &older.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(last.run_log().next_number(), entries);
}
