//! Collection keeps what it should, and never takes a pack from a save under way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use support::{Scene, State, checkpoint, restored, save};
use whimbrel_state::Manifest;
use whimbrel_store::{CollectError, CommitError, Office, Retention, collect, commit};

const HOUR: Duration = Duration::from_secs(3600);

fn keep(keep: u32) -> Retention {
    Retention { keep, grace: HOUR, in_flight: Vec::new() }
}

fn pack_name(manifest: &Manifest, index: usize) -> String {
    let hash = manifest.packs[index].hash.to_string();
    format!("packs/{}/{hash}.safetensors", &hash[..2])
}

fn steps(office: &Office) -> Vec<u64> {
    office.history().checkpoints().iter().map(|checkpoint| checkpoint.step).collect()
}

/// Makes every pack look as if it had been put two hours ago.
fn age_packs(scene: &Scene) {
    for file in scene.files("packs").values() {
        let then = SystemTime::now() - 2 * HOUR;
        File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
    }
}

async fn with_checkpoints(steps: &[u64]) -> (Scene, Office) {
    let scene = Scene::new().await;
    let mut office = scene.run().take_office("c").await.unwrap();
    for &step in steps {
        checkpoint(&mut office, &State::small(step as u8), step).await;
    }
    (scene, office)
}

#[tokio::test]
async fn the_newest_are_kept_whole_and_the_rest_is_gone() {
    let (scene, mut office) = with_checkpoints(&[1, 2, 3, 4]).await;
    let collected = collect(&mut office, &keep(2)).await.unwrap();
    assert_eq!((collected.manifests.len(), steps(&office)), (2, vec![3, 4]));
    for checkpoint in office.history().checkpoints() {
        assert_eq!(
            restored(&scene.run(), &checkpoint.manifest).await.unwrap(),
            State::small(checkpoint.step as u8)
        );
    }
    let manifest = scene.run().manifest(&office.history().checkpoints()[0].manifest).await.unwrap();
    assert_eq!(scene.files("packs").len(), 2 * manifest.packs.len());
    assert_eq!(scene.files("manifests").len(), 2);
    // Nothing is left to do, and nothing is recorded about it.
    let entries = office.history().entries().len();
    assert_eq!(collect(&mut office, &keep(2)).await.unwrap(), Default::default());
    assert_eq!(office.history().entries().len(), entries);
}

#[tokio::test]
async fn the_last_checkpoint_stays_whatever_is_asked() {
    let (scene, mut office) = with_checkpoints(&[1, 2]).await;
    collect(&mut office, &Retention { keep: 0, grace: Duration::ZERO, in_flight: Vec::new() }).await.unwrap();
    assert_eq!(steps(&office), [2]);
    let name = office.history().checkpoints()[0].manifest.clone();
    assert_eq!(restored(&scene.run(), &name).await.unwrap(), State::small(2));
}

#[tokio::test]
async fn packs_of_a_save_under_way_stay() {
    let (scene, mut office) = with_checkpoints(&[1]).await;
    let young = save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    collect(&mut office, &keep(1)).await.unwrap();
    commit(&mut office, &young, None).await.unwrap();

    // A save that takes longer than the grace, known to the coordinator.
    let slow = save(&scene.run(), &State::small(10), 10, 2).await.unwrap();
    age_packs(&scene);
    let in_flight = slow.packs.iter().map(|pack| pack.hash).collect();
    checkpoint(&mut office, &State::small(11), 11).await;
    collect(&mut office, &Retention { in_flight, ..keep(1) }).await.unwrap();
    let committed = commit(&mut office, &slow, None).await.unwrap();
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), State::small(10));
}

#[tokio::test]
async fn what_a_dead_save_left_goes_after_the_grace() {
    let (scene, mut office) = with_checkpoints(&[1]).await;
    save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    let with_litter = scene.files("packs").len();
    assert_eq!(collect(&mut office, &keep(1)).await.unwrap().packs, 0);
    age_packs(&scene);
    let collected = collect(&mut office, &Retention { grace: Duration::ZERO, ..keep(1) }).await.unwrap();
    assert_eq!(collected.packs, with_litter / 2);
    assert_eq!(steps(&office), [1]);
}

#[tokio::test]
async fn a_save_that_counted_on_a_swept_pack_is_refused_and_saves_it_again() {
    let (scene, mut office) = with_checkpoints(&[1, 2]).await;
    // The state is that of step 1 again: every pack is there, and none is put.
    let manifest = save(&scene.run(), &State::small(1), 3, 2).await.unwrap();
    collect(&mut office, &keep(1)).await.unwrap();
    let error = commit(&mut office, &manifest, None).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Lacks { packs, .. } if packs.len() == manifest.packs.len()),
        "{error}"
    );
    assert_eq!(steps(&office), [2]);

    let manifest = save(&scene.run(), &State::small(1), 3, 2).await.unwrap();
    let committed = commit(&mut office, &manifest, None).await.unwrap();
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), State::small(1));
}

#[tokio::test]
async fn packs_that_a_kept_checkpoint_shares_stay() {
    let (scene, mut office) = with_checkpoints(&[]).await;
    let mut other = State::small(1);
    checkpoint(&mut office, &other, 1).await;
    other.bytes[0] ^= 1;
    let kept = checkpoint(&mut office, &other, 2).await;
    let collected = collect(&mut office, &keep(1)).await.unwrap();
    assert_eq!(collected.packs, 1, "the one pack that differs");
    assert_eq!(restored(&scene.run(), &kept.manifest).await.unwrap(), other);
}

#[tokio::test]
async fn a_checkpoint_that_lost_a_pack_does_not_displace_one_that_is_whole() {
    let (scene, mut office) = with_checkpoints(&[1, 2, 3]).await;
    let newest = office.history().checkpoints()[2].manifest.clone();
    let manifest = scene.run().manifest(&newest).await.unwrap();
    fs::remove_file(&scene.files("packs")[&pack_name(&manifest, 1)]).unwrap();
    collect(&mut office, &keep(1)).await.unwrap();
    assert_eq!(steps(&office), [2, 3]);
    let whole = office.history().checkpoints()[0].manifest.clone();
    assert_eq!(restored(&scene.run(), &whole).await.unwrap(), State::small(2));
}

#[tokio::test]
async fn nothing_is_collected_while_a_manifest_is_unreadable() {
    let (scene, mut office) = with_checkpoints(&[1, 2, 3]).await;
    let newest = office.history().checkpoints()[2].manifest.clone();
    fs::write(&scene.files("manifests")[&newest], b"{}").unwrap();
    let packs = scene.files("packs");
    let error = collect(&mut office, &keep(1)).await.unwrap_err();
    assert!(matches!(error, CollectError::Unreadable(_)), "{error}");
    assert_eq!(scene.files("packs"), packs);

    whimbrel_store::quarantine(&mut office, &newest, "unreadable", &[]).await.unwrap();
    collect(&mut office, &keep(1)).await.unwrap();
    assert_eq!(steps(&office), [2]);
}
