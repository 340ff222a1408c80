//! Arbitrary bytes in place of an entry, a manifest or a URI give an error and never a panic.
use crate::support::{SMALL_PACKS, Scene, State, save};
use proptest::prelude::*;
use whimbrel_state::{Hash, Manifest, Pack, Piece, StateBytes};
use whimbrel_store::{Entry, HostedBy, Record, open_run, restore, verify};

fn entry() -> Entry {
    Entry {
        format: 1,
        number: 3,
        epoch: 2,
        writer: "ab".into(),
        time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        record: Record::Submitted { spec: "a = \"é\"\n".into(), hosted_by: HostedBy::Service },
    }
}

/// Frames any content as an entry with the right hash.
fn framed(content: &[u8]) -> Vec<u8> {
    let hash = Hash::of(content).to_string();
    [b"{\"entry\":", content, b",\"blake3\":\"", hash.as_bytes(), b"\"}\n"].concat()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #[test]
    fn arbitrary_entries_are_refused(bytes: Vec<u8>, content in "\\PC*", cut in 0_usize..200) {
        Entry::decode(&bytes).unwrap_err();
        Entry::decode(&framed(&bytes)).unwrap_err();
        Entry::decode(&framed(content.as_bytes())).unwrap_err();
        let whole = entry().encode().unwrap();
        Entry::decode(&whole[..cut.min(whole.len() - 1)]).unwrap_err();
    }

    #[test]
    fn arbitrary_manifests_are_refused(bytes: Vec<u8>, text in "\\PC*", name in "\\PC*") {
        runtime().block_on(async {
            let scene = Scene::new().await;
            std::fs::create_dir_all(scene.folder().join("r/manifests")).unwrap();
            for content in [bytes.as_slice(), text.as_bytes()] {
                let name = format!("manifests/{:012}-{}.json", 5, Hash::of(content));
                std::fs::write(scene.folder().join("r").join(&name), content).unwrap();
                scene.run().manifest(&name).await.unwrap_err();
            }
            scene.run().manifest(&name).await.unwrap_err();
        });
    }

    #[test]
    fn arbitrary_pieces_of_a_manifest_are_refused(
        pieces in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..3),
        small in prop::collection::vec((0_u64..300, 0_u64..300, 0_u64..300), 0..3),
        length: u64,
    ) {
        runtime().block_on(async {
            let scene = Scene::new().await;
            let state = State::small(1);
            let good = save(&scene.run(), &state, 5, 1).await.unwrap();
            for pieces in [pieces, small] {
                let pieces = pieces.into_iter().map(|(offset, start, length)| Piece { offset, start, length });
                let mut bad = good.clone();
                bad.packs[0].pieces = pieces.collect();
                refused(&scene, &bad).await;
                let hash = bad.packs[0].hash;
                bad.packs = vec![Pack { hash, length, pieces: vec![Piece { offset: 0, start: 0, length: state.bytes.len() as u64 }], blocks: Vec::new() }];
                refused(&scene, &bad).await;
            }
        });
    }

    #[test]
    fn arbitrary_uris_do_not_panic(uri in "\\PC{0,40}") {
        // Some are the URI of a run. Those of buckets are left out: opening them reads the environment.
        if !uri.contains("://") {
            let _ = open_run(&uri);
        }
    }
}

async fn refused(scene: &Scene, manifest: &Manifest) {
    let mut state = State::blank(&manifest.layout);
    let mut bytes = StateBytes::new(state.tensors()).unwrap();
    restore(&scene.run().into(), manifest, &mut bytes, &SMALL_PACKS).await.unwrap_err();
    verify(&scene.run(), manifest, &SMALL_PACKS, |_| {}).await.unwrap_err();
}

#[test]
fn unknown_fields_are_ignored_and_later_formats_are_refused() {
    let bytes = entry().encode().unwrap();
    assert_eq!(Entry::decode(&bytes).unwrap(), entry());
    let content = serde_json::to_string(&entry()).unwrap();
    assert!(content.contains("\"record\":\"submitted\""), "{content}");
    let more = content.replacen('{', "{\"weather\":\"fair\",", 1);
    assert_eq!(Entry::decode(&framed(more.as_bytes())).unwrap(), entry());
    let later = content.replacen("\"format\":1", "\"format\":2", 1).replacen("submitted", "sung", 1);
    let error = Entry::decode(&framed(later.as_bytes())).unwrap_err();
    assert!(error.to_string().contains("use a newer whimbrel"), "{error}");
}
