//! Packs: a state saved in any slices is restored bit for bit, and any safetensors reader opens its packs.
use std::collections::BTreeMap;

use crate::support::{Faulty, SMALL_PACKS, Scene, State, checkpoint, restored, save};
use proptest::prelude::*;
use safetensors::SafeTensors;
use whimbrel_state::{Dtype, Layout, Manifest, StateBytes, TensorSpec, manifest::FORMAT};
use whimbrel_store::{
    Limits, RestoreError, SaveError, read_state, restore, restore_some, save_slice, verify,
};

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(Dtype::ALL.to_vec())
}

/// Layouts of up to eight tensors, including scalars and empty ones, with names that are hard to encode.
fn layout() -> impl Strategy<Value = Layout> {
    let name = prop_oneof![
        "[a-z]{1,6}(\\.[a-z0-9]{1,3})?",
        Just("__metadata__".to_owned()),
        Just("w".to_owned()),
        Just("w[0..4]".to_owned()),
        "[\"\\\\é \\n/]{1,4}",
    ];
    let tensor = (dtype(), prop::collection::vec(0_usize..6, 0..4));
    prop::collection::btree_map(name, tensor, 0..8).prop_map(|tensors: BTreeMap<_, _>| {
        let tensors = tensors.into_iter().map(|(name, (dtype, shape))| TensorSpec { name, dtype, shape });
        Layout::new(tensors.collect()).unwrap()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_state_is_restored_bit_for_bit(
        layout in layout(), seed: u8, workers in 1_usize..5, pack_bytes in 0_usize..120, wanted: u8,
    ) {
        runtime().block_on(round_trip(State::filled(layout.into(), seed), workers, pack_bytes, wanted));
    }
}

async fn round_trip(state: State, workers: usize, pack_bytes: usize, wanted: u8) {
    let scene = Scene::new().await;
    let run = scene.run();
    let limits = Limits { pack_bytes, concurrency: 3, bandwidth: None };
    let mut packs = Vec::new();
    for worker in 0..workers {
        let slice = state.layout.slice(worker, workers);
        let staged = state.staged(slice.clone());
        packs.extend(save_slice(&run, &state.layout, slice, staged, &limits).await.unwrap());
    }
    let layout = state.layout.clone();
    let manifest = Manifest {
        format: FORMAT,
        run: "r".into(),
        step: 4,
        generation: 2,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    };
    manifest.check().unwrap();

    let mut read = State::blank(&state.layout);
    restore(&run.clone().into(), &manifest, &mut StateBytes::new(read.tensors()).unwrap(), &limits)
        .await
        .unwrap();
    assert_eq!(read, state);
    let mut reported = 0;
    let verified = verify(&run, &manifest, &limits, |bytes| reported += bytes).await.unwrap();
    assert_eq!((verified.state, verified.bytes), (state.digest(4), reported));

    let from = state.bytes.len() * usize::from(wanted) / 256;
    let mut part = Vec::new();
    let reading = |bytes: &[u8]| part.extend_from_slice(bytes);
    let sources = run.clone().into();
    read_state(&sources, &manifest, from as u64..state.bytes.len() as u64, &limits, reading).await.unwrap();
    assert_eq!(part, state.bytes[from..]);

    let mut some = State::blank(&state.layout);
    let mut tensors = some.tensors();
    let is_wanted = |index: usize| wanted >> index & 1 == 1;
    let mut index = 0..;
    tensors.retain(|_| is_wanted(index.next().unwrap()));
    restore_some(&run.clone().into(), &manifest, tensors, &limits).await.unwrap();
    for index in 0..state.layout.tensors().len() {
        let range = state.layout.range_of(index);
        let expected =
            if is_wanted(index) { state.bytes[range.clone()].to_vec() } else { vec![0; range.len()] };
        assert_eq!(some.bytes[range], expected);
    }
    opens_as_safetensors(&scene, &state, &manifest);
}

/// Reads the packs with the safetensors crate and finds every tensor in them, whole or in parts.
fn opens_as_safetensors(scene: &Scene, state: &State, manifest: &Manifest) {
    let files = scene.files("packs");
    let mut found = 0;
    for pack in &manifest.packs {
        let name = format!("packs/{}/{}.safetensors", &pack.hash.to_string()[..2], pack.hash);
        let file = std::fs::read(&files[&name]).unwrap();
        let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(header % 8, 0);
        let tensors = SafeTensors::deserialize(&file).unwrap();
        for (name, view) in tensors.iter() {
            let at = view.data().as_ptr() as usize - file.as_ptr() as usize - header;
            assert_eq!(at * 8 % view.dtype().bitsize(), 0, "{name} is not aligned");
            // A name that was taken has a prime appended. The bytes prove that it is the right tensor.
            let bare = name.trim_end_matches('\'');
            let part = bare.strip_suffix(']').and_then(|bare| bare.rsplit_once('['));
            let part = part.and_then(|(tensor, range)| Some((tensor, range.split_once("..")?)));
            let tensors = state.layout.tensors().iter().enumerate();
            let matches = tensors.filter(|(index, tensor)| {
                let bytes = &state.bytes[state.layout.range_of(*index)];
                let size = tensor.dtype.size();
                let whole = tensor.name == bare && view.shape() == tensor.shape && view.data() == bytes;
                let is_part = part.is_some_and(|(name, (start, end))| {
                    let range = start.parse::<usize>().unwrap() * size..end.parse::<usize>().unwrap() * size;
                    name == tensor.name && bytes.get(range) == Some(view.data())
                });
                format!("{:?}", tensor.dtype) == format!("{:?}", view.dtype()) && (whole || is_part)
            });
            assert_ne!(matches.count(), 0, "{name:?} is not a tensor of the state");
            found += view.data().len();
        }
    }
    assert_eq!(found, state.bytes.len());
}

#[tokio::test]
async fn saving_the_same_state_again_puts_nothing() {
    let scene = Scene::new().await;
    let first = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
    let store = Faulty::over(scene.folder());
    let again = save(&scene.run_over(&store), &State::small(1), 5, 2).await.unwrap();
    assert_eq!(first, again);
    assert!(store.seen().iter().all(|request| request.starts_with("head")), "{:?}", store.seen());
}

#[tokio::test]
async fn two_slicings_share_all_packs_except_those_at_their_boundaries() {
    let scene = Scene::new().await;
    let state = State::filled(vec![TensorSpec::f32("w", [1024])], 3);
    let two = save(&scene.run(), &state, 5, 2).await.unwrap();
    let three = save(&scene.run(), &state, 5, 3).await.unwrap();
    let shared = three.packs.iter().filter(|pack| two.packs.contains(pack)).count();
    assert_eq!((two.packs.len(), three.packs.len(), shared), (64, 66, 62));
}

#[tokio::test]
async fn a_pack_of_wrong_length_is_put_again() {
    let scene = Scene::new().await;
    let state = State::small(1);
    save(&scene.run(), &state, 5, 2).await.unwrap();
    for file in scene.files("packs").values() {
        std::fs::write(file, b"cut short").unwrap();
    }
    let mut term = scene.run().start_term("c").await.unwrap();
    let committed = checkpoint(&mut term, &state, 5).await;
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), state);
}

#[tokio::test]
async fn restore_some_reads_only_the_packs_of_its_tensors() {
    let scene = Scene::new().await;
    let state = State::filled(vec![TensorSpec::f32("adam", [64]), TensorSpec::f32("weights", [16])], 1);
    let manifest = save(&scene.run(), &state, 5, 1).await.unwrap();
    let mut blank = State::blank(&state.layout);
    let mut tensors = blank.tensors();
    tensors.retain(|tensor| tensor.spec.name == "weights");
    let report = restore_some(&scene.run().into(), &manifest, tensors, &SMALL_PACKS).await.unwrap();
    assert_eq!((manifest.packs.len(), report.packs), (5, 1));
}

#[tokio::test]
async fn restoring_into_another_layout_fails_and_names_the_difference() {
    let scene = Scene::new().await;
    let manifest = save(&scene.run(), &State::small(1), 5, 2).await.unwrap();
    let mut other = State::filled(vec![TensorSpec::f32("embedding", [8, 6])], 1);
    let mut bytes = StateBytes::new(other.tensors()).unwrap();
    let error = restore(&scene.run().into(), &manifest, &mut bytes, &SMALL_PACKS).await.unwrap_err();
    let RestoreError::Layout { step: 5, source } = error else { panic!("{error}") };
    assert!(source.to_string().contains("[8, 5]") && source.to_string().contains("[8, 6]"), "{source}");
    let error =
        restore_some(&scene.run().into(), &manifest, other.tensors(), &SMALL_PACKS).await.unwrap_err();
    assert!(matches!(error, RestoreError::Layout { .. }), "{error}");
}

#[tokio::test]
async fn invalid_slices_are_refused() {
    let scene = Scene::new().await;
    let state = State::small(1);
    let end = state.layout.bytes();
    let backwards = std::ops::Range { start: 8, end: 4 };
    for (range, staged) in [(0..end + 1, end + 1), (0..8, 7), (1..end, end - 1), (backwards, 0)] {
        let staged = vec![0; staged].into();
        let error = save_slice(&scene.run(), &state.layout, range, staged, &SMALL_PACKS).await.unwrap_err();
        assert!(matches!(error, SaveError::Range { .. }), "{error}");
    }
}
