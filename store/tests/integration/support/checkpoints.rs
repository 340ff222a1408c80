//! Runs with checkpoints, and assertions about these.

use std::fs;

use whimbrel_store::{Ended, Outcome, Record, RunDir, Stopped, Term, verify};

use super::{SMALL_PACKS, Scene, State, checkpoint};

/// A run with a term and a checkpoint after each of these steps.
pub(crate) async fn with_checkpoints(steps: &[u64]) -> (Scene, Term) {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    for &step in steps {
        checkpoint(&mut term, &State::small(step as u8), step).await;
    }
    (scene, term)
}

pub(crate) fn stopped(step: u64) -> Record {
    Record::Stopped(Stopped { step, reason: "asked to".into() })
}

pub(crate) fn finished(step: u64) -> Record {
    let outcome = Outcome::Finished;
    Record::Ended(Ended { outcome, step, loss: None, val_loss: None, state: None, reason: None })
}

/// Damages a pack of the newest checkpoint that no other has.
pub(crate) async fn damage_newest(scene: &Scene) {
    let checkpoints = scene.run().run_log().await.unwrap().checkpoints();
    let (newest, others) = checkpoints.split_last().unwrap();
    let mut packs = scene.run().manifest(&newest.manifest).await.unwrap().packs;
    for other in others {
        let known = scene.run().manifest(&other.manifest).await.unwrap().packs;
        packs.retain(|pack| known.iter().all(|known| known.hash != pack.hash));
    }
    let pack = packs.pop().unwrap().hash.to_string();
    let (_, path) = scene.files("packs").into_iter().find(|(name, _)| name.contains(&pack)).unwrap();
    fs::write(path, "damaged").unwrap();
}

/// The steps of the usable checkpoints.
pub(crate) async fn steps(run: &RunDir) -> Vec<u64> {
    run.run_log().await.unwrap().checkpoints().iter().map(|checkpoint| checkpoint.step).collect()
}

/// Asserts that every usable checkpoint is complete, byte for byte.
pub(crate) async fn assert_whole(run: &RunDir) {
    for checkpoint in run.run_log().await.unwrap().checkpoints() {
        let manifest = run.manifest(&checkpoint.manifest).await.unwrap();
        let verified = verify(run, &manifest, &SMALL_PACKS, |_| {}).await.unwrap();
        assert_eq!(Some(verified.state), checkpoint.state, "step {}", checkpoint.step);
    }
}
