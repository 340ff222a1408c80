//! A flipped bit in any object is noticed. A damaged checkpoint is quarantined or healed from a replica.
use std::{error::Error, fs, path::Path};

use crate::support::{Faulty, SMALL_PACKS, Scene, State, checkpoint, restored, save};
use whimbrel_state::{Pack, StateBytes};
use whimbrel_store::{
    BadPack, CommitError, LogError, ReadManifestError, RestoreError, Sources, Store, Verifier, VerifyError,
    commit, quarantine, restore, verify,
};

/// Flips one bit in each byte of a file in turn, and calls `noticed` for each.
async fn flip_each_byte(file: &Path, mut noticed: impl AsyncFnMut(usize)) {
    let good = fs::read(file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(file, &bad).unwrap();
        noticed(at).await;
    }
    fs::write(file, good).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_any_byte_of_the_log_is_noticed() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    checkpoint(&mut term, &State::small(1), 5).await;
    for file in scene.files("log").values() {
        flip_each_byte(file, async |at| {
            let error = scene.run().run_log().await.unwrap_err();
            assert!(matches!(error, LogError::Entry { .. }), "byte {at}: {error}");
        })
        .await;
    }
    scene.run().run_log().await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_any_byte_of_a_manifest_is_noticed() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let name = checkpoint(&mut term, &State::small(1), 5).await.manifest;
    flip_each_byte(&scene.files("manifests")[&name], async |at| {
        let error = scene.run().manifest(&name).await.unwrap_err();
        assert!(
            matches!(error, ReadManifestError::Damaged { .. }) && error.is_damage(),
            "byte {at}: {error}"
        );
    })
    .await;
    scene.run().manifest(&name).await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_any_byte_of_a_pack_is_noticed() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let name = checkpoint(&mut term, &State::small(1), 5).await.manifest;
    for file in scene.files("packs").values() {
        flip_each_byte(file, async |at| {
            let error = restored(&scene.run(), &name).await.unwrap_err();
            let damaged =
                |error| matches!(error, RestoreError::Damaged { source: BadPack::Damaged { .. }, .. });
            assert!(damaged(error), "byte {at}");
        })
        .await;
    }
    restored(&scene.run(), &name).await.unwrap();
}

#[tokio::test]
async fn verify_finds_every_bad_pack() {
    let scene = Scene::new().await;
    let manifest = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
    let files = scene.files("packs");
    let file = |index: usize| {
        let hash = manifest.packs[index].hash.to_string();
        files[&format!("packs/{}/{hash}.safetensors", &hash[..2])].clone()
    };
    fs::remove_file(file(0)).unwrap();
    let mut flipped = fs::read(file(1)).unwrap();
    *flipped.last_mut().unwrap() ^= 4;
    fs::write(file(1), flipped).unwrap();
    fs::write(file(3), b"").unwrap();

    let error = verify(&scene.run(), &manifest, &SMALL_PACKS, |_| {}).await.unwrap_err();
    let VerifyError::Damaged { step: 5, bad } = error else { panic!("{error}") };
    let packs: Vec<_> = bad.iter().map(BadPack::pack).collect();
    assert_eq!(packs, [0, 1, 3].map(|index| manifest.packs[index].hash));
    assert!(matches!(
        bad[..],
        [BadPack::Missing { .. }, BadPack::Damaged { .. }, BadPack::WrongLength { found: 0, .. }]
    ));
}

#[tokio::test]
async fn after_a_quarantine_the_same_step_can_be_saved_again() {
    let scene = Scene::new().await;
    let run = scene.run();
    let mut term = run.start_term("c").await.unwrap();
    let before = checkpoint(&mut term, &State::small(1), 10).await;
    let damaged = checkpoint(&mut term, &State::small(2), 20).await;
    let hash = run.manifest(&damaged.manifest).await.unwrap().packs[0].hash;
    let packs = run.manifest(&damaged.manifest).await.unwrap().packs;
    let file = scene.files("packs")[&format!("packs/{}/{hash}.safetensors", &hash.to_string()[..2])].clone();
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();

    let error = restored(&run, &damaged.manifest).await.unwrap_err();
    let RestoreError::Damaged { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.pack(), hash);
    let reason = error.source().unwrap().to_string();
    let removed = quarantine(&mut term, &damaged.manifest, &reason, &packs[..2]).await.unwrap();
    assert_eq!(removed, [hash], "the damaged pack is deleted and the good one stays");

    let usable = term.run_log().checkpoints();
    assert_eq!(usable.last().unwrap().manifest, before.manifest);
    assert_eq!(restored(&run, &before.manifest).await.unwrap(), State::small(1));
    let listed = run.run_log().await.unwrap().all_checkpoints();
    assert_eq!(listed[1].quarantined.as_deref(), Some(reason.as_str()));

    // The run computes the same step again, with the same bits. Its pack is put, since the damaged one was deleted.
    let again = checkpoint(&mut term, &State::small(2), 20).await;
    assert_eq!(again.manifest, damaged.manifest);
    assert_eq!(restored(&run, &again.manifest).await.unwrap(), State::small(2));
    assert_eq!(term.run_log().checkpoints().last().unwrap().step, 20);
}

#[tokio::test]
async fn a_checkpoint_that_lacks_packs_or_is_of_another_run_is_not_committed() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let manifest = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
    let hash = manifest.packs[1].hash;
    let file = scene.files("packs")[&format!("packs/{}/{hash}.safetensors", &hash.to_string()[..2])].clone();
    fs::remove_file(file).unwrap();
    let error = commit(&mut term, &manifest, None).await.unwrap_err();
    assert!(matches!(&error, CommitError::Lacks { step: 5, packs } if packs[..] == [hash]), "{error}");

    let mut foreign = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
    foreign.run = "other".into();
    assert!(matches!(commit(&mut term, &foreign, None).await.unwrap_err(), CommitError::Invalid { .. }));
    let mut torn = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
    torn.packs.pop();
    assert!(matches!(commit(&mut term, &torn, None).await.unwrap_err(), CommitError::Invalid { .. }));
    assert!(term.run_log().checkpoints().is_empty());
    assert!(scene.files("manifests").is_empty());
}

#[tokio::test]
async fn what_the_primary_lost_is_read_from_a_replica_and_put_back() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let committed = checkpoint(&mut term, &State::small(1), 5).await;
    let copy = Scene::new().await;
    let mut elsewhere = copy.run().start_term("c").await.unwrap();
    assert_eq!(checkpoint(&mut elsewhere, &State::small(1), 5).await.manifest, committed.manifest);

    let packs = scene.files("packs");
    let mut names: Vec<&String> = packs.keys().collect();
    names.sort();
    fs::remove_file(&packs[names[0]]).unwrap();
    let mut flipped = fs::read(&packs[names[1]]).unwrap();
    flipped[9] ^= 1;
    fs::write(&packs[names[1]], flipped).unwrap();
    fs::write(&packs[names[2]], b"cut").unwrap();
    fs::remove_file(&scene.files("manifests")[&committed.manifest]).unwrap();

    let sources = Sources::new(scene.run()).with_replica(copy.run());
    let manifest = sources.manifest(&committed.manifest).await.unwrap();
    let mut state = State::blank(&manifest.layout);
    let mut bytes = StateBytes::new(state.tensors()).unwrap();
    let report = restore(&sources, &manifest, &mut bytes, &SMALL_PACKS).await.unwrap();
    assert_eq!(state, State::small(1));
    let mut healed: Vec<String> = report.healed.iter().map(ToString::to_string).collect();
    healed.sort();
    let expected: Vec<&str> = names[..3].iter().map(|name| &name[9..73]).collect();
    assert_eq!(healed, expected, "the three bad packs are whole again");
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), State::small(1));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_does_not_count_as_damaged_while_a_replica_does_not_answer() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let committed = checkpoint(&mut term, &State::small(1), 5).await;
    fs::write(&scene.files("manifests")[&committed.manifest], b"cut").unwrap();

    let copy = Scene::new().await;
    let answering = Sources::new(scene.run()).with_replica(copy.run());
    let error = answering.manifest(&committed.manifest).await.unwrap_err();
    assert!(matches!(error, ReadManifestError::Damaged { .. }), "no store has it: {error}");

    // `manifests` is a file in this replica, so every request for a manifest fails.
    let uri = copy.folder().join("store").to_str().unwrap().to_owned();
    let failing = Store::open(&uri).unwrap().run(scene.run().id());
    fs::create_dir_all(copy.folder().join("store").join(scene.run().id().as_str())).unwrap();
    fs::write(copy.folder().join("store").join(scene.run().id().as_str()).join("manifests"), "").unwrap();
    let sources = answering.with_replica(failing);
    let error = sources.manifest(&committed.manifest).await.unwrap_err();
    assert!(matches!(error, ReadManifestError::Store(_)), "{error}");
    assert!(!error.is_damage());
}

#[tokio::test]
async fn a_checkpoint_is_damaged_if_no_source_has_a_pack() {
    let (scene, copy) = (Scene::new().await, Scene::new().await);
    let manifest = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
    save(&copy.run(), &State::small(1), 5, 2).await.unwrap();
    let (name, file) = scene.files("packs").into_iter().next().unwrap();
    fs::remove_file(file).unwrap();
    fs::write(&copy.files("packs")[&name], b"cut").unwrap();
    let sources = Sources::new(scene.run()).with_replica(copy.run());
    let mut state = State::blank(&manifest.layout);
    let mut bytes = StateBytes::new(state.tensors()).unwrap();
    let error = restore(&sources, &manifest, &mut bytes, &SMALL_PACKS).await.unwrap_err();
    let is_missing = matches!(&error, RestoreError::Damaged { source: BadPack::Missing { .. }, .. });
    assert!(is_missing, "the error is that of the primary: {error}");
}

#[tokio::test]
async fn a_verifier_reads_a_shared_pack_once_and_finds_all_checkpoints_that_it_damages() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let mut state = State::small(1);
    let older = checkpoint(&mut term, &state, 10).await.manifest;
    state.bytes[0] ^= 1;
    let newer = checkpoint(&mut term, &state, 20).await.manifest;
    let (older, newer) =
        (scene.run().manifest(&older).await.unwrap(), scene.run().manifest(&newer).await.unwrap());
    let is_shared = |pack: &&Pack| older.packs.iter().any(|other| other.hash == pack.hash);
    let shared: Vec<_> = newer.packs.iter().filter(is_shared).collect();
    assert_eq!(shared.len() + 1, newer.packs.len(), "all packs but one are shared");

    let store = Faulty::over(scene.folder());
    let reads = || store.seen().iter().filter(|request| request.starts_with("get r/packs/")).count();
    let mut verifier = Verifier::new(&scene.run_over(&store), &SMALL_PACKS);
    let mut bytes = 0;
    let mut progress = |read| bytes += read;
    assert_eq!(verifier.verify(&newer, &mut progress).await.unwrap(), Some(state.digest(20)));
    assert_eq!(verifier.verify(&older, &mut progress).await.unwrap(), None, "not all of it was read");
    assert_eq!((reads(), bytes), (newer.packs.len() + 1, Verifier::bytes_of([&newer, &older])));

    let hash = shared[0].hash.to_string();
    fs::write(&scene.files("packs")[&format!("packs/{}/{hash}.safetensors", &hash[..2])], b"cut").unwrap();
    let mut verifier = Verifier::new(&scene.run(), &SMALL_PACKS);
    for (manifest, expected) in [(&newer, 20), (&older, 10)] {
        let error = verifier.verify(manifest, |_| {}).await.unwrap_err();
        let VerifyError::Damaged { step, bad } = error else { panic!("{error}") };
        assert_eq!((step, bad.len(), bad[0].pack()), (expected, 1, shared[0].hash));
    }
}
