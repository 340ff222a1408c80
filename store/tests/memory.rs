//! What a save, a restore and a copy hold in memory beyond the state is a few packs, however large the state.
//!
//! The only test of its binary: it counts every byte that the program allocates.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout as Memory, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use whimbrel_state::{Layout, Manifest, StateBytes, TensorMut, TensorSpec, manifest::FORMAT};
use whimbrel_store::{
    CheckpointSelection, HostedBy, Limits, Store, commit, plan_copy, restore, save_slice, verify,
};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all it does besides counting, the system's allocator does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        let held = HELD.fetch_add(memory.size(), Relaxed) + memory.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        HELD.fetch_sub(memory.size(), Relaxed);
        // SAFETY: `at` came from `System` by `alloc` above, with this layout.
        unsafe { System.dealloc(at, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;
const STATE: usize = 96 * MIB;
const LIMITS: Limits = Limits { pack_bytes: 2 * MIB, concurrency: 3, bandwidth: None };

/// The most that was allocated at a time while `work` ran, beyond what was there before, in packs.
async fn peak<T>(work: impl Future<Output = T>) -> (T, usize) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let done = work.await;
    (done, PEAK.load(Relaxed).saturating_sub(before) / LIMITS.pack_bytes)
}

#[tokio::test]
async fn a_few_packs() {
    let folder = tempfile::tempdir().unwrap();
    let run = Store::open(folder.path().to_str().unwrap()).unwrap().run(&"r".parse().unwrap());
    let mut values: Vec<f32> = (0..STATE / 4).map(|at| at as f32).collect();
    let layout = Layout::new(vec![TensorSpec::f32("w", [values.len()])]).unwrap();
    let staged: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let staged = Bytes::from(staged);

    let (packs, most) = peak(save_slice(&run, &layout, 0..STATE, staged.clone(), &LIMITS)).await;
    assert!(most <= 1, "a save of {STATE} bytes held {most} packs");
    let manifest = Manifest {
        format: FORMAT,
        run: "r".into(),
        step: 1,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs: packs.unwrap(),
    };

    let (verified, most) = peak(verify(&run, &manifest, &LIMITS, |_| {})).await;
    verified.unwrap();
    assert!(most <= LIMITS.concurrency + 4, "a verification held {most} packs");

    values.fill(0.0);
    let mut state = StateBytes::new(vec![TensorMut::f32("w", [STATE / 4], &mut values)]).unwrap();
    let (restored, most) = peak(restore(&run.clone().into(), &manifest, &mut state, &LIMITS)).await;
    restored.unwrap();
    assert!(most <= LIMITS.concurrency + 2, "a restore held {most} packs");
    assert!(state.tensor(0) == staged);

    run.create("", HostedBy::Embedded).await.unwrap();
    let mut term = run.start_term("a test").await.unwrap();
    commit(&mut term, &manifest, None).await.unwrap();
    let there = tempfile::tempdir().unwrap();
    let copy = Store::open(there.path().to_str().unwrap()).unwrap().run(&"r".parse().unwrap());
    let plan = plan_copy(&run, &copy, CheckpointSelection::All).await.unwrap();
    let (copied, most) = peak(Box::pin(plan.execute("a test", &LIMITS, &mut |_| {}))).await;
    assert_eq!(copied.unwrap().moved.packs.objects, manifest.packs.len());
    // As many come in as go out.
    assert!(most <= 2 * LIMITS.concurrency + 1, "a copy held {most} packs");
}
