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
    CopyError, MirrorError, Record, Relation, Replicator, Retention, RunDir, Unheard, Which, bring_back,
    has_news, plan_copy, quarantine, relation,
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
    let (scene, mut office) = with_checkpoints(&[10]).await;
    let known = scene.files("");
    for step in [20, 30] {
        checkpoint(&mut office, &State::small(step as u8), step).await;
    }
    office.append(last_word).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    fall_back_to(&known, &scene);
    (scene, there)
}

#[tokio::test]
async fn what_the_source_lost_is_brought_back_from_its_copy_under_the_next_office() {
    let (scene, mut office) = with_checkpoints(&[10, 20]).await;
    let known = scene.files("");
    checkpoint(&mut office, &State::small(30), 30).await;
    office.append(stopped(30)).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    let made = scene.run().history().await.unwrap().checkpoints().pop().unwrap();
    drop(office);
    fall_back_to(&known, &scene);
    assert_eq!(steps(&scene.run()).await, [10, 20]);

    let mut next = scene.run().take_office("next").await.unwrap();
    let brought = bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!((&brought.committed[..], brought.left_out.len()), (&[30][..], 0));
    assert_whole(&scene.run()).await;
    let found = next.history().checkpoints().pop().unwrap();
    assert_eq!((&found.manifest, found.origin), (&made.manifest, made.origin));
    assert_eq!(next.history().stopped().unwrap().step, 30);
    // Once more, there is nothing to bring.
    let entries = next.history().next_number();
    bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.history().next_number(), entries);

    // The copy is behind by then, and gets in step.
    let theirs = there.run().history().await.unwrap();
    assert_eq!(relation(next.history(), &theirs), Relation::Behind);
    next.append(Record::Resumed { step: 30 }).await.unwrap();
    checkpoint(&mut next, &State::small(40), 40).await;
    let mut replicator = Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    replicator.replicate(next.history(), &mut |_| {}).await.unwrap();
    assert_eq!(
        (steps(&there.run()).await, there.run().history().await.unwrap().stopped()),
        (vec![30, 40], None)
    );
    assert_whole(&there.run()).await;
    // What the copy was stopped by is an old word by now.
    bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.history().stopped(), None);
}

#[tokio::test]
async fn where_the_copys_newest_is_damaged_the_one_before_it_is_brought_back() {
    let (scene, there) = fallen_back(stopped(30)).await;
    damage_newest(&there).await;

    let mut next = scene.run().take_office("next").await.unwrap();
    let brought = bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(brought.committed, [20]);
    assert_eq!(brought.left_out.iter().map(|left_out| left_out.step).collect::<Vec<_>>(), [30]);
    assert_eq!(steps(&scene.run()).await, [10, 20]);
    assert_whole(&scene.run()).await;
    assert_eq!(next.history().stopped().unwrap().step, 30);
}

#[tokio::test]
async fn a_run_whose_last_checkpoint_is_damaged_wherever_it_is_has_not_finished_and_goes_on() {
    let (scene, there) = fallen_back(finished(30)).await;
    assert_eq!(there.run().history().await.unwrap().ended().unwrap().step, 30);
    damage_newest(&there).await;

    let mut next = scene.run().take_office("next").await.unwrap();
    let brought = bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!((&brought.committed[..], brought.left_out.len()), (&[20][..], 1));
    assert!(brought.moved.packs > 0 && brought.bad.packs == 1, "{brought:?}");
    assert!(next.history().ended().is_none());

    // Nor has it, by what its copy has to say, once that is in step with what it did since.
    checkpoint(&mut next, &State::small(25), 25).await;
    let mut replicator = Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    replicator.replicate(next.history(), &mut |_| {}).await.unwrap();
    let mut after = scene.run().take_office("after").await.unwrap();
    assert!(!has_news(&there.run().history().await.unwrap(), after.history()));
    bring_back(&mut after, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert!(after.history().ended().is_none());
}

#[tokio::test]
async fn a_checkpoint_of_a_later_format_is_no_damaged_one_and_not_gone_on_without() {
    let (scene, mut office) = with_checkpoints(&[10, 20]).await;
    let known = scene.files("");
    let newest = office.history().checkpoints().pop().unwrap();
    let manifest = fs::read_to_string(scene.files("manifests").remove(&newest.manifest).unwrap()).unwrap();
    let format = format!("\"format\":{}", whimbrel_state::manifest::FORMAT);
    let later = manifest.replacen(&format, "\"format\":99", 1);
    assert_ne!(manifest, later);
    let name = format!("manifests/000000000030-{}.json", Hash::of(later.as_bytes()));
    fs::write(scene.folder().join("r").join(&name), later).unwrap();
    let (bytes, state) = (newest.bytes, newest.state);
    let record = Record::Checkpoint { step: 30, manifest: name, bytes, state, origin: None };
    office.append(record).await.unwrap();
    drop(office);
    let there = Scene::empty();
    for (name, path) in scene.files("") {
        let copied = there.folder().join("r").join(name);
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        fs::copy(path, copied).unwrap();
    }
    fall_back_to(&known, &scene);

    let mut next = scene.run().take_office("next").await.unwrap();
    let refused = bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(&refused, CopyError::Unreadable { step: 30, source } if !source.is_damage()),
        "{refused}"
    );
    assert!(has_news(&there.run().history().await.unwrap(), next.history()));
}

#[tokio::test]
async fn a_run_that_went_on_without_a_checkpoint_of_its_replica_says_so_once_that_is_back() {
    let (scene, there) = fallen_back(stopped(30)).await;
    // The replica is out of reach, and the run goes on from step 10.
    let mut next = scene.run().take_office("next").await.unwrap();
    next.append(Record::Resumed { step: 10 }).await.unwrap();
    for step in [15, 18] {
        checkpoint(&mut next, &State::small(step as u8), step).await;
    }
    let replicator = || Replicator::new(&scene.run(), &there.run(), "next", KEEP_TWO, SMALL_PACKS);
    let mut keeper = replicator();
    let lag = keeper.replicate(next.history(), &mut |_| {}).await.unwrap();
    assert_eq!(
        (lag.newest, &lag.unheard[..]),
        (Some(18), &[Unheard::Checkpoint { step: 30 }, Unheard::Stopped][..])
    );
    let lag = keeper.replicate(next.history(), &mut |_| {}).await.unwrap();
    assert_eq!(lag.unheard, [], "it is told once");

    // A replica of what the run has heard of has nothing that it went on without.
    let after = scene.run().take_office("after").await.unwrap();
    let lag = replicator().replicate(after.history(), &mut |_| {}).await.unwrap();
    assert_eq!(lag.unheard, []);
}

#[tokio::test]
async fn what_ended_is_known_by_its_copy_even_if_no_checkpoint_was_lost() {
    let (scene, mut office) = with_checkpoints(&[10]).await;
    let known = scene.files("");
    office.append(stopped(10)).await.unwrap();
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    drop(office);
    fall_back_to(&known, &scene);
    let (here, copied) = (scene.run().history().await.unwrap(), there.run().history().await.unwrap());
    assert!(here.stopped().is_none() && has_news(&copied, &here));
    let mut next = scene.run().take_office("next").await.unwrap();
    bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(next.history().stopped().unwrap().step, 10);
    assert!(!has_news(&copied, next.history()));
    // A checkpoint that was found to be damaged here is no news.
    let (scene, mut office) = with_checkpoints(&[10, 20]).await;
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    let newest = office.history().checkpoints().pop().unwrap();
    quarantine(&mut office, &newest.manifest, "a test", &[]).await.unwrap();
    assert!(!has_news(&there.run().history().await.unwrap(), office.history()));
}

#[tokio::test]
async fn nothing_is_brought_back_from_where_the_run_went_on() {
    let (scene, mut office) = with_checkpoints(&[10, 20]).await;
    let there = Scene::empty();
    copy(&scene.run(), &there.run(), Which::All).await;
    let mut resumed = there.run().take_office("elsewhere").await.unwrap();
    checkpoint(&mut resumed, &State::small(25), 25).await;
    let error = bring_back(&mut office, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, CopyError::Mirror(MirrorError::WentOn { .. })), "{error}");
    let mut next = scene.run().take_office("next").await.unwrap();
    let error = bring_back(&mut next, &there.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, CopyError::Mirror(MirrorError::Diverged { .. })), "{error}");
    assert_eq!(steps(&scene.run()).await, [10, 20]);
    // An older copy has nothing to give, and an older word to say.
    next.append(stopped(20)).await.unwrap();
    let older = Scene::empty();
    copy(&scene.run(), &older.run(), Which::Step(10)).await;
    let mut last = scene.run().take_office("last").await.unwrap();
    last.append(Record::Resumed { step: 20 }).await.unwrap();
    let entries = last.history().next_number();
    bring_back(&mut last, &older.run(), &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert_eq!(last.history().next_number(), entries);
}
