//! Collection keeps the checkpoints that retention names, and never deletes a pack of a save in flight.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use support::{Faulty, Scene, State, checkpoint, checkpoints::with_checkpoints, restored, save};
use whimbrel_state::{Hash, Manifest};
use whimbrel_store::{CommitError, Entry, KeepEvery, Mode, Record, Retention, Store, Term, collect, commit};

const HOUR: Duration = Duration::from_secs(3600);

fn keep(last: u32) -> Retention {
    Retention { last, every: None, grace: HOUR, in_flight: Vec::new() }
}

fn pack_name(manifest: &Manifest, index: usize) -> String {
    let hash = manifest.packs[index].hash.to_string();
    format!("packs/{}/{hash}.safetensors", &hash[..2])
}

fn steps(term: &Term) -> Vec<u64> {
    term.run_log().checkpoints().iter().map(|checkpoint| checkpoint.step).collect()
}

/// Makes every pack look as if it had been put two hours ago.
fn age_packs(scene: &Scene) {
    for file in scene.files("packs").values() {
        let then = SystemTime::now() - 2 * HOUR;
        File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
    }
}

#[tokio::test]
async fn the_newest_checkpoints_are_kept_and_the_rest_is_deleted() {
    let (scene, mut term) = with_checkpoints(&[1, 2, 3, 4]).await;
    let collected = collect(&mut term, &keep(2)).await.unwrap();
    assert_eq!((collected.manifests.len(), steps(&term)), (2, vec![3, 4]));
    for checkpoint in term.run_log().checkpoints() {
        assert_eq!(
            restored(&scene.run(), &checkpoint.manifest).await.unwrap(),
            State::small(checkpoint.step as u8)
        );
    }
    let manifest = scene.run().manifest(&term.run_log().checkpoints()[0].manifest).await.unwrap();
    assert_eq!(scene.files("packs").len(), 2 * manifest.packs.len());
    assert_eq!(scene.files("manifests").len(), 2);
    // A second collection deletes nothing and records nothing.
    let entries = term.run_log().entries().len();
    assert_eq!(collect(&mut term, &keep(2)).await.unwrap(), Default::default());
    assert_eq!(term.run_log().entries().len(), entries);
}

#[tokio::test]
async fn the_last_checkpoint_is_kept_whatever_the_retention() {
    let (scene, mut term) = with_checkpoints(&[1, 2]).await;
    collect(&mut term, &Retention { last: 0, every: None, grace: Duration::ZERO, in_flight: Vec::new() })
        .await
        .unwrap();
    assert_eq!(steps(&term), [2]);
    let name = term.run_log().checkpoints()[0].manifest.clone();
    assert_eq!(restored(&scene.run(), &name).await.unwrap(), State::small(2));
}

#[tokio::test]
async fn packs_of_a_save_in_flight_stay() {
    let (scene, mut term) = with_checkpoints(&[1]).await;
    let young = save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    collect(&mut term, &keep(1)).await.unwrap();
    commit(&mut term, &young, None).await.unwrap();

    // A save that takes longer than the grace, known to the coordinator.
    let slow = save(&scene.run(), &State::small(10), 10, 2).await.unwrap();
    age_packs(&scene);
    let in_flight = slow.packs.iter().map(|pack| pack.hash).collect();
    checkpoint(&mut term, &State::small(11), 11).await;
    collect(&mut term, &Retention { in_flight, ..keep(1) }).await.unwrap();
    let committed = commit(&mut term, &slow, None).await.unwrap();
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), State::small(10));
}

#[tokio::test]
async fn packs_of_a_dead_save_are_deleted_after_the_grace() {
    let (scene, mut term) = with_checkpoints(&[1]).await;
    save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    let with_litter = scene.files("packs").len();
    assert_eq!(collect(&mut term, &keep(1)).await.unwrap().packs, 0);
    age_packs(&scene);
    let collected = collect(&mut term, &Retention { grace: Duration::ZERO, ..keep(1) }).await.unwrap();
    assert_eq!(collected.packs, with_litter / 2);
    assert_eq!(steps(&term), [1]);
}

#[tokio::test]
async fn a_commit_that_needs_a_deleted_pack_fails_until_it_is_saved_again() {
    let (scene, mut term) = with_checkpoints(&[1, 2]).await;
    // The state is that of step 1 again: every pack exists, and none is put.
    let manifest = save(&scene.run(), &State::small(1), 3, 2).await.unwrap();
    collect(&mut term, &keep(1)).await.unwrap();
    let error = commit(&mut term, &manifest, None).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Lacks { packs, .. } if packs.len() == manifest.packs.len()),
        "{error}"
    );
    assert_eq!(steps(&term), [2]);

    let manifest = save(&scene.run(), &State::small(1), 3, 2).await.unwrap();
    let committed = commit(&mut term, &manifest, None).await.unwrap();
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), State::small(1));
}

#[tokio::test]
async fn packs_that_a_kept_checkpoint_shares_stay() {
    let (scene, mut term) = with_checkpoints(&[]).await;
    let mut other = State::small(1);
    checkpoint(&mut term, &other, 1).await;
    other.bytes[0] ^= 1;
    let kept = checkpoint(&mut term, &other, 2).await;
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!(collected.packs, 1, "the one pack that differs");
    assert_eq!(restored(&scene.run(), &kept.manifest).await.unwrap(), other);
}

#[tokio::test]
async fn a_checkpoint_that_lacks_a_pack_does_not_displace_a_complete_one() {
    let (scene, mut term) = with_checkpoints(&[1, 2, 3]).await;
    let newest = term.run_log().checkpoints()[2].manifest.clone();
    let manifest = scene.run().manifest(&newest).await.unwrap();
    fs::remove_file(&scene.files("packs")[&pack_name(&manifest, 1)]).unwrap();
    collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!(steps(&term), [2, 3]);
    let whole = term.run_log().checkpoints()[0].manifest.clone();
    assert_eq!(restored(&scene.run(), &whole).await.unwrap(), State::small(2));
}

#[tokio::test]
async fn no_pack_is_deleted_while_a_kept_manifest_is_unreadable() {
    let (scene, mut term) = with_checkpoints(&[1, 2, 3]).await;
    let newest = term.run_log().checkpoints()[2].manifest.clone();
    let unreadable = scene.run().manifest(&newest).await.unwrap();
    let its_packs = unreadable.packs.len();
    fs::write(&scene.files("manifests")[&newest], b"{}").unwrap();
    save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    let before = scene.files("packs").len();
    age_packs(&scene);

    // Step 1 is given up, but its packs stay: checkpoints share packs, and any may be the unreadable one's.
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    let [unreadable] = &collected.unreadable[..] else { panic!("{collected:?}") };
    assert!(unreadable.manifest == newest && unreadable.is_damaged, "{unreadable:?}");
    assert_eq!((steps(&term), collected.packs), (vec![2, 3], 0));
    assert_eq!(scene.files("packs").len(), before);

    whimbrel_store::quarantine(&mut term, &newest, "unreadable", &[]).await.unwrap();
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!((steps(&term), collected.unreadable.len()), (vec![2], 0));
    assert_eq!(scene.files("packs").len(), its_packs);
}

#[tokio::test]
async fn every_deletion_is_recorded_first_even_of_unreferenced_packs_alone() {
    let (scene, mut term) = with_checkpoints(&[1]).await;
    save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    age_packs(&scene);
    let entries = term.run_log().entries().len();
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert!(collected.packs > 0);
    let boundary = Record::Collected { manifests: Vec::new() };
    assert_eq!(term.run_log().entries().len(), entries + 1);
    assert_eq!(term.run_log().entries().last().unwrap().record, boundary);
}

/// The late entry stands for the commit of a coordinator that was paused in the middle of it.
#[tokio::test]
async fn a_commit_that_lands_just_before_the_boundary_keeps_its_packs() {
    let (scene, term) = with_checkpoints(&[1]).await;
    let late = save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    age_packs(&scene);
    let bytes = serde_json::to_vec(&late).unwrap();
    let manifest = format!("manifests/{:012}-{}.json", 9, Hash::of(&bytes));
    fs::write(scene.folder().join("r").join(&manifest), &bytes).unwrap();
    let entry = Entry {
        format: 1,
        number: term.run_log().next_number() + 1,
        epoch: term.epoch() + 1,
        writer: "late".into(),
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        record: Record::Checkpoint {
            step: 9,
            manifest: manifest.clone(),
            bytes: 1,
            state: None,
            origin: None,
        },
    };
    // It lands after the collection has read the log and decided, and before it writes its boundary.
    let path = scene.folder().join(format!("r/log/{:020}.json", entry.number));
    let body = entry.encode().unwrap();
    let boundary = format!("put r/log/{:020}.json", entry.number);
    let store = Faulty::over(scene.folder()).before(&boundary, move || fs::write(&path, &body).unwrap());
    let mut term = scene.run_over(&store).start_term("c").await.unwrap();
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!(steps(&term), [9], "the late commit counts");
    assert_eq!(collected.manifests.len(), 1);
    assert_eq!(restored(&scene.run(), &manifest).await.unwrap(), State::small(9));
}

#[tokio::test]
async fn a_checkpoint_of_each_interval_is_kept_for_good() {
    let (scene, mut term) = with_checkpoints(&[]).await;
    let retention = Retention { every: Some(KeepEvery::Steps(10)), ..keep(2) };
    for step in [4, 9, 12, 15, 21, 24, 28, 33] {
        checkpoint(&mut term, &State::small(step as u8), step).await;
        collect(&mut term, &retention).await.unwrap();
    }
    assert_eq!(steps(&term), [12, 21, 28, 33]);
    let kept: Vec<u64> = retention.kept(term.run_log()).iter().map(|checkpoint| checkpoint.step).collect();
    assert_eq!(kept, steps(&term));
    for checkpoint in term.run_log().checkpoints() {
        let state = restored(&scene.run(), &checkpoint.manifest).await.unwrap();
        assert_eq!(state, State::small(checkpoint.step as u8));
    }
}

#[tokio::test]
async fn temp_files_of_a_killed_put_are_deleted_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let run = Store::open(folder.path().to_str().unwrap()).unwrap().run(&"r".parse().unwrap());
    run.create("", Mode::Embedded).await.unwrap();
    let mut term = run.start_term("c").await.unwrap();
    checkpoint(&mut term, &State::small(1), 1).await;
    let packs = folder.path().join("r/packs/ab");
    fs::create_dir_all(&packs).unwrap();
    let left = |name: &str, age: Duration| {
        let file = packs.join(name);
        fs::write(&file, b"half a pack").unwrap();
        let then = SystemTime::now() - age;
        File::options().write(true).open(&file).unwrap().set_modified(then).unwrap();
        file
    };
    let (old, young) = (left("abc.safetensors#1", 2 * HOUR), left("abc.safetensors#2", HOUR / 2));
    let no_number = left("abc#.safetensors", 2 * HOUR);
    assert_eq!(collect(&mut term, &keep(1)).await.unwrap().temp_files, 1);
    assert!(!old.exists() && young.exists() && no_number.exists());
    assert_eq!(steps(&term), [1]);
}
