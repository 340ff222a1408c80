//! Logs and manifests that are almost right: complete, with valid hashes, and with content that Whimbrel never wrote.
//! Reading them gives an error or a log, never a panic.
use std::{fs, sync::Arc};

use crate::support::{SMALL_PACKS, Scene, State, checkpoint, save};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use proptest::prelude::*;
use whimbrel_state::Hash;
use whimbrel_store::{
    Ended, Entry, EntryError, HostedBy, KeepEvery, LogError, Origin, Outcome, ReadManifestError, Record,
    ReplicaOf, Retention, RunDir, Stopped, Store, collect, plan_copy, relation, verify,
};

fn run_over(objects: &Arc<InMemory>) -> RunDir {
    Store::with_backend("test://store", Arc::clone(objects) as Arc<_>).run(&"r".parse().unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Frames any content as an entry with the right hash.
fn framed(content: &[u8]) -> Vec<u8> {
    let hash = Hash::of(content).to_string();
    [b"{\"entry\":", content, b",\"blake3\":\"", hash.as_bytes(), b"\"}\n"].concat()
}

fn content(entry: &Entry) -> Vec<u8> {
    let whole = entry.encode().unwrap();
    let frame = framed(b"").len() - b"{\"entry\":".len();
    whole[b"{\"entry\":".len()..whole.len() - frame].to_vec()
}

/// A log with every kind of record.
fn log() -> Vec<Entry> {
    let time = "2026-01-02T03:04:05.678Z".parse().unwrap();
    let replica = |term: &str| ReplicaOf {
        source: "s3://lab/runs/r".into(),
        term: term.into(),
        prior_terms: vec!["1".into(), "x".into()],
    };
    let checkpoint = |step: u64, origin| Record::Checkpoint {
        step,
        manifest: format!("manifests/{step:012}-{}.json", Hash::of(&step.to_le_bytes())),
        bytes: 1 << 40,
        state: Some(Hash::of(b"state")),
        origin,
    };
    let manifest = "manifests/000000000010-x.json".to_owned();
    let records = [
        (0, Record::Submitted { spec: "a = \"é\"\n".into(), hosted_by: HostedBy::Service }),
        (1, Record::Term { coordinator: "c".into(), replica_of: None }),
        (1, checkpoint(10, None)),
        (2, Record::Term { coordinator: "a copy".into(), replica_of: Some(replica("y")) }),
        (2, Record::Term { coordinator: "another".into(), replica_of: Some(replica("y")) }),
        (2, checkpoint(20, Some(Origin { epoch: 2, entry: 7, time }))),
        (2, Record::Quarantined { manifest: manifest.clone(), reason: "bits".into() }),
        (2, Record::Collected { manifests: vec![manifest] }),
        (2, Record::Stopped(Stopped { step: 20, reason: "asked to".into() })),
        (3, Record::Term { coordinator: "c".into(), replica_of: None }),
        (3, Record::Resumed { step: 20 }),
        (
            3,
            Record::Ended(Ended {
                outcome: Outcome::Finished,
                step: 20,
                loss: Some(1.5),
                val_loss: None,
                state: Some(Hash::of(b"state")),
                reason: None,
            }),
        ),
    ];
    let entry = |(number, (epoch, record)): (usize, (u64, Record))| Entry {
        format: 1,
        number: number as u64,
        epoch,
        writer: number.to_string(),
        time,
        record,
    };
    records.into_iter().enumerate().map(entry).collect()
}

/// Changes bytes of a text; digits become other digits.
fn changed(mut text: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for &(at, byte) in changes {
        let at = at % text.len();
        text[at] = match text[at] {
            b'0'..=b'9' => b'0' + byte % 10,
            _ if byte.is_multiple_of(3) => b"{}[]\",:0-n"[byte as usize / 3 % 10],
            _ => byte,
        };
    }
    text
}

async fn with_entries(entries: impl IntoIterator<Item = Vec<u8>>) -> Arc<InMemory> {
    let objects = Arc::new(InMemory::new());
    for (number, entry) in entries.into_iter().enumerate() {
        objects.put(&Path::from(format!("r/log/{number:020}.json")), entry.into()).await.unwrap();
    }
    objects
}

/// Calls every function that reads a log.
async fn ask(objects: &Arc<InMemory>) {
    let run = run_over(objects);
    let Ok(run_log) = run.run_log().await else { return };
    let whole = run_over(&with_entries(log().iter().map(|entry| entry.encode().unwrap())).await);
    let other = whole.run_log().await.unwrap();
    relation(&run_log, &other);
    relation(&other, &run_log);
    let _ = (run_log.ended(), run_log.stopped(), run_log.replica_of(), run_log.coordinator());
    let every = [KeepEvery::Steps(7), KeepEvery::Time(std::time::Duration::from_secs(9))];
    for every in every {
        let retention = Retention { every: Some(every), ..Retention::default() };
        retention.kept(&run_log);
    }
    let empty = run_over(&Arc::new(InMemory::new()));
    if let Ok(plan) = plan_copy(&run, &empty, whimbrel_store::CheckpointSelection::All).await {
        let _ = plan.execute("a copy", &SMALL_PACKS, &mut |_| {}).await;
    }
    if let Ok(mut term) = run.start_term("c").await {
        let _ = collect(&mut term, &Retention::default()).await;
    }
}

proptest! {
    #[test]
    fn an_entry_with_other_bytes(
        number in 0_usize..12,
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let log = log();
        let bad = framed(&changed(content(&log[number]), &changes));
        if let Ok(entry) = Entry::decode(&bad) {
            prop_assert_eq!(Entry::decode(&entry.encode().unwrap()).unwrap(), entry);
        }
        let entries = log.iter().map(|entry| entry.encode().unwrap());
        let entries = entries.enumerate().map(|(at, good)| if at == number { bad.clone() } else { good });
        runtime().block_on(async { ask(&with_entries(entries.collect::<Vec<_>>()).await).await });
    }

    #[test]
    fn entries_in_any_order_and_of_any_epoch(
        order in prop::collection::vec((0_usize..12, 0_u64..4), 0..12),
        far: bool,
    ) {
        let log = log();
        let entries = order.iter().enumerate().map(|(number, &(of, epoch))| {
            let epoch = if far && epoch == 3 { u64::MAX } else { epoch };
            let entry = Entry { number: number as u64 + 1, epoch, ..log[of].clone() };
            entry.encode().unwrap()
        });
        let entries: Vec<_> = std::iter::once(log[0].encode().unwrap()).chain(entries).collect();
        runtime().block_on(async { ask(&with_entries(entries).await).await });
    }

    #[test]
    fn a_manifest_with_other_bytes(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        runtime().block_on(async {
            let scene = Scene::new().await;
            let manifest = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
            let bad = changed(serde_json::to_vec(&manifest).unwrap(), &changes);
            let name = format!("manifests/{:012}-{}.json", 5, Hash::of(&bad));
            fs::create_dir_all(scene.folder().join("r/manifests")).unwrap();
            fs::write(scene.folder().join("r").join(&name), &bad).unwrap();
            if let Ok(manifest) = scene.run().manifest(&name).await {
                let _ = verify(&scene.run(), &manifest, &SMALL_PACKS, |_| {}).await;
            }
        });
    }
}

#[tokio::test]
async fn an_object_that_is_too_long_is_not_read() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let name = checkpoint(&mut term, &State::small(1), 5).await.manifest;
    // Sparse files: long, without using disk space.
    let stretch = |name: &str, length| {
        let file = fs::File::options().write(true).open(scene.folder().join("r").join(name)).unwrap();
        file.set_len(length).unwrap();
    };
    stretch(&name, 1 << 40);
    let error = scene.run().manifest(&name).await.unwrap_err();
    assert!(matches!(error, ReadManifestError::TooLong { length, .. } if length == 1 << 40), "{error}");
    assert!(error.is_damage());
    stretch("log/00000000000000000001.json", 1 << 40);
    let error = scene.run().run_log().await.unwrap_err();
    assert!(matches!(error, LogError::Entry { source: EntryError::Frame, .. }), "{error}");
}
