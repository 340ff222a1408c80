//! A diff finds every differing element of two checkpoints, however they are packed, and does not read what hashes
//! prove equal.
use crate::support::{Faulty, SMALL_PACKS, Scene, State};
use bytes::Bytes;
use proptest::prelude::*;
use whimbrel_state::{Dtype, Layout, Manifest, TensorSpec};
use whimbrel_store::{
    Limits, RunDir, Sources,
    diff::{DiffPlan, Difference, ValueDifference},
    save_slice,
};

async fn saved(run: &RunDir, state: &State, workers: usize, pack_bytes: usize) -> Manifest {
    let limits = Limits { pack_bytes, ..SMALL_PACKS };
    let mut packs = Vec::new();
    for worker in 0..workers {
        let slice = state.layout.slice(worker, workers);
        let staged = Bytes::copy_from_slice(&state.bytes[slice.clone()]);
        packs.extend(save_slice(run, &state.layout, slice, staged, &limits).await.unwrap());
    }
    let (run, layout) = (run.id().to_string(), state.layout.clone());
    let format = whimbrel_state::manifest::FORMAT;
    Manifest {
        format,
        run,
        step: 1,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    }
}

async fn differ(run: &RunDir, a: &Manifest, b: &Manifest) -> Difference {
    let sources = Sources::new(run.clone());
    let plan = DiffPlan::new(a, b);
    plan.execute((&sources, a), (&sources, b), &SMALL_PACKS, &mut |_| {}).await.unwrap()
}

/// Layouts of element types in which different bits are different values.
fn layout() -> impl Strategy<Value = Layout> {
    use Dtype::{I16, I64, U8, U32};
    let dtype = prop::sample::select(vec![I16, I64, U8, U32]);
    prop::collection::btree_map("[a-e]", (dtype, prop::collection::vec(0_usize..6, 0..3)), 1..5).prop_map(
        |tensors| {
            let spec = |(name, (dtype, shape))| TensorSpec { name, dtype, shape };
            Layout::new(tensors.into_iter().map(spec).collect()).unwrap()
        },
    )
}

/// The tensors that differ and the number of differing elements, computed from the states themselves.
fn expected(a: &State, b: &State) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for (index, tensor) in a.layout.tensors().iter().enumerate() {
        let Some(other) = b.layout.tensors().iter().position(|other| other == tensor) else { continue };
        let (ours, theirs) = (&a.bytes[a.layout.range_of(index)], &b.bytes[b.layout.range_of(other)]);
        let size = tensor.dtype.size();
        let count = ours.chunks(size).zip(theirs.chunks(size)).filter(|(a, b)| a != b).count();
        if count > 0 {
            found.push((tensor.name.clone(), count as u64));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_difference_is_found(
        first in layout(), second: Option<usize>, other in layout(), seed: u8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 0..4),
        workers in (1_usize..4, 1_usize..4), pack_bytes in (1_usize..60, 1_usize..60),
    ) {
        let a = State::filled(first.clone().into(), seed);
        let mut b = match second {
            Some(_) => State::filled(other.into(), seed),
            None => a.clone(),
        };
        for (at, change) in changes {
            if !b.bytes.is_empty() {
                let at = at.index(b.bytes.len());
                b.bytes[at] ^= change;
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new().await;
            let run = scene.run();
            let in_a = saved(&run, &a, workers.0, pack_bytes.0).await;
            let in_b = saved(&run, &b, workers.1, pack_bytes.1).await;
            let found = differ(&run, &in_a, &in_b).await;
            let changed: Vec<(String, u64)> =
                found.changed.iter().map(|(tensor, apart)| (tensor.name.clone(), apart.elements)).collect();
            assert_eq!(changed, expected(&a, &b));
            let shared = a.layout.tensors().iter().filter(|tensor| b.layout.tensors().contains(tensor)).count();
            assert_eq!(found.equal + found.changed.len(), shared);
            assert_eq!(found.only_in_a.len() + found.reshaped.len() + shared, a.layout.tensors().len());
            assert_eq!(found.only_in_b.len() + found.reshaped.len() + shared, b.layout.tensors().len());
            assert_eq!(found.is_none(), a == b);
        });
    }
}

#[tokio::test]
async fn differences_are_reported_by_tensor() {
    let scene = Scene::new().await;
    let run = scene.run();
    let f32s = |name: &str, length| TensorSpec::f32(name, [length]);
    let state = |specs: Vec<TensorSpec>, values: &[f32]| State {
        layout: Layout::new(specs).unwrap(),
        bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    let a = state(
        vec![f32s("gone", 1), f32s("same", 2), f32s("shape", 1), f32s("w", 3)],
        &[9.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0],
    );
    let b = state(
        vec![f32s("new", 1), f32s("same", 2), f32s("shape", 2), f32s("w", 3)],
        &[8.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.5, f32::NAN],
    );
    let (in_a, in_b) = (saved(&run, &a, 1, 1000).await, saved(&run, &b, 1, 1000).await);
    let found = differ(&run, &in_a, &in_b).await;
    assert_eq!(found.only_in_a, [f32s("gone", 1)]);
    assert_eq!(found.only_in_b, [f32s("new", 1)]);
    assert_eq!(found.reshaped, [(f32s("shape", 1), f32s("shape", 2))]);
    assert_eq!(found.changed, [(f32s("w", 3), ValueDifference { elements: 2, largest: 0.5, not_finite: 1 })]);
    assert_eq!(found.equal, 1);
}

#[tokio::test]
async fn what_hashes_prove_equal_is_not_read() {
    let scene = Scene::new().await;
    let run = scene.run();
    let a = State::small(1);
    let mut b = a.clone();
    *b.bytes.last_mut().unwrap() ^= 1;
    let (in_a, in_b) = (saved(&run, &a, 2, 64).await, saved(&run, &b, 2, 64).await);

    let watched = Faulty::over(scene.folder());
    let over = scene.run_over(&watched);
    let found = differ(&over, &in_a, &in_a).await;
    assert!(found.is_none() && found.compared == 0, "{found:?}");
    assert_eq!(watched.seen(), [""; 0]);

    let found = differ(&over, &in_a, &in_b).await;
    assert_eq!(found.changed.len(), 1);
    assert_eq!(found.compared + found.equal_by_hash, a.bytes.len() as u64);
    let packs = |manifest: &Manifest| manifest.packs.len();
    assert!(packs(&in_a) > 2 && watched.seen().len() == 2, "one pack of each: {:?}", watched.seen());
}

/// Two packs of several blocks differ in one byte: only the block that holds it is compared.
#[tokio::test]
async fn equal_blocks_of_different_packs_are_not_read() {
    let scene = Scene::new().await;
    let run = scene.run();
    let block = whimbrel_state::blocks::BLOCK as usize;
    let a = State::filled(vec![TensorSpec::f32("w", [3 * block / 4])], 5);
    let mut b = a.clone();
    b.bytes[block + block / 2] ^= 1;
    let (in_a, in_b) = (saved(&run, &a, 1, 4 * block).await, saved(&run, &b, 1, 4 * block).await);
    assert_eq!((in_a.packs.len(), in_a.packs[0].blocks.len()), (1, 4));
    let found = differ(&run, &in_a, &in_b).await;
    assert_eq!(found.changed[0].1.elements, 1);
    assert_eq!(found.compared as usize, block);
    assert_eq!(found.equal_by_hash as usize, 2 * block);
}
