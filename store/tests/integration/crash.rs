//! The crash matrix: every request of saving, committing, quarantining and collecting fails in turn in every way, and
//! every acknowledged checkpoint is still there.
use std::{error::Error, time::Duration};

use crate::support::{Fault, Faulty, SMALL_PACKS, Scene, State, checkpoint, restored, save};
use whimbrel_store::{Retention, RunDir, collect, commit, quarantine, verify};

const KEEP_ONE: Retention = Retention { last: 1, every: None, grace: Duration::ZERO, in_flight: Vec::new() };

/// The state after a step: even steps share most of their bytes, as frozen layers do.
fn state(step: u64) -> State {
    let mut state = State::small((step % 2) as u8);
    state.bytes[0] = step as u8;
    state
}

/// The life of a coordinator. `acknowledged` gets each step whose commit was acknowledged.
async fn live(run: &RunDir, acknowledged: &mut Vec<u64>) -> Result<(), Box<dyn Error>> {
    let mut term = run.start_term("first").await?;
    for step in [20, 30, 40] {
        let manifest = save(run, &state(step), step, 2).await?;
        commit(&mut term, &manifest, Some(state(step).digest(step))).await?;
        acknowledged.push(step);
        if step == 30 {
            collect(&mut term, &KEEP_ONE).await?;
        }
    }
    let newest = term.run_log().checkpoints().pop().ok_or("no checkpoint")?;
    let manifest = run.manifest(&newest.manifest).await?;
    quarantine(&mut term, &newest.manifest, "a test", &manifest.packs[..1]).await?;
    acknowledged.pop();
    collect(&mut term, &KEEP_ONE).await?;
    Ok(())
}

async fn prepared() -> Scene {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("setup").await.unwrap();
    checkpoint(&mut term, &state(10), 10).await;
    scene
}

/// Another coordinator takes over: every byte of every acknowledged checkpoint is there, and the run goes on.
async fn take_over(scene: &Scene, acknowledged: &[u64], told: &str) {
    let run = scene.run();
    let mut term = run.start_term("second").await.unwrap();
    let checkpoints = term.run_log().checkpoints();
    let newest = checkpoints.last().unwrap_or_else(|| panic!("{told}: no checkpoint is left"));
    // The quarantine of step 40 may be in the log although it was not acknowledged.
    let acknowledged = acknowledged.iter().copied().filter(|&step| step < 40).max().unwrap_or(10);
    assert!(newest.step >= acknowledged, "{told}: {} instead of {acknowledged}", newest.step);
    for checkpoint in &checkpoints {
        let manifest =
            run.manifest(&checkpoint.manifest).await.unwrap_or_else(|error| panic!("{told}: {error}"));
        let verified = verify(&run, &manifest, &SMALL_PACKS, |_| {}).await;
        let verified = verified.unwrap_or_else(|error| panic!("{told}: step {}: {error}", checkpoint.step));
        assert_eq!(verified.state, state(checkpoint.step).digest(checkpoint.step), "{told}");
    }
    assert_eq!(restored(&run, &newest.manifest).await.unwrap(), state(newest.step), "{told}");

    let next = checkpoint(&mut term, &state(50), 50).await;
    collect(&mut term, &KEEP_ONE).await.unwrap();
    assert_eq!(restored(&run, &next.manifest).await.unwrap(), state(50), "{told}");
    let manifest = run.manifest(&next.manifest).await.unwrap();
    assert_eq!(scene.files("packs").len(), manifest.packs.len(), "{told}: litter is left");
    assert_eq!(scene.files("manifests").len(), 1, "{told}: litter is left");
}

async fn requests_of_a_life() -> Vec<String> {
    let scene = prepared().await;
    let store = Faulty::over(scene.folder());
    live(&scene.run_over(&store), &mut Vec::new()).await.unwrap();
    take_over(&scene, &[], "without a fault").await;
    store.seen()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_at_any_request_loses_nothing_acknowledged() {
    let requests = requests_of_a_life().await;
    assert!(requests.iter().any(|request| request.starts_with("delete")), "{requests:?}");
    for (at, request) in requests.iter().enumerate() {
        for fault in Fault::CRASHES {
            let told = format!("{fault:?} at request {at} of {}, {request}", requests.len());
            let scene = prepared().await;
            let run = scene.run_over(&Faulty::over(scene.folder()).fail_at(at, fault));
            let mut acknowledged = Vec::new();
            let outcome = live(&run, &mut acknowledged).await;
            assert!(outcome.is_err() || fault == Fault::CrashAfter, "{told}");
            take_over(&scene, &acknowledged, &told).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transient_fault_at_any_request_has_no_effect() {
    let requests = requests_of_a_life().await;
    for (at, request) in requests.iter().enumerate() {
        for fault in Fault::PASSING {
            let told = format!("{fault:?} at request {at}, {request}");
            let scene = prepared().await;
            let run = scene.run_over(&Faulty::over(scene.folder()).fail_at(at, fault));
            let mut acknowledged = Vec::new();
            live(&run, &mut acknowledged).await.unwrap_or_else(|error| panic!("{told}: {error}"));
            take_over(&scene, &acknowledged, &told).await;
        }
    }
}
