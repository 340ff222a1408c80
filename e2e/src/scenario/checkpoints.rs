//! Makes checkpoints, and checks that a store has them unchanged.

use whimbrel_state::{Manifest, StateBytes, manifest::FORMAT};
use whimbrel_store::{
    CheckpointInfo, Committed, Limits, RunDir, Sources, Term, commit, quarantine, restore, save_slice, verify,
};

use super::{
    promise::{Broken, ScenarioResult, broken, chain},
    state::State,
    stores::LIMITS,
};

/// Checks every checkpoint of a run. All must be whole. If the store may hold other bytes than were sent (`damaged`),
/// the checkpoints that are not whole are quarantined instead, and at least one must be whole.
pub(super) async fn check_all(term: &mut Term, damaged: bool) -> ScenarioResult {
    let mut whole = 0;
    for checkpoint in term.run_log().checkpoints().into_iter().rev() {
        match check(term.run(), &checkpoint).await {
            Ok(()) => whole += 1,
            Err(error) if error.is::<Broken>() => return Err(error),
            Err(error) if damaged => {
                let suspects = term
                    .run()
                    .manifest(&checkpoint.manifest)
                    .await
                    .map(|manifest| manifest.packs)
                    .unwrap_or_default();
                quarantine(term, &checkpoint.manifest, &error.to_string(), &suspects).await?;
            }
            Err(error) => {
                return Err(broken(format!(
                    "step {} is not whole: {}",
                    checkpoint.step,
                    chain(error.as_ref())
                )));
            }
        }
    }
    if whole == 0 {
        return Err(broken("no checkpoint is whole"));
    }
    Ok(())
}

/// Verifies and restores a checkpoint, and compares both with the state that was saved.
pub(super) async fn check(run: &RunDir, checkpoint: &CheckpointInfo) -> ScenarioResult {
    let manifest = run.manifest(&checkpoint.manifest).await?;
    let verified = verify(run, &manifest, &LIMITS, |_| {}).await?;
    let expected = State::of(checkpoint.step).digest(checkpoint.step);
    if verified.state != expected {
        return Err(broken(format!("step {} was verified with another state", checkpoint.step)));
    }
    restore_one(&run.clone().into(), checkpoint).await
}

/// Restores a checkpoint, and compares it with the state that was saved.
pub(super) async fn restore_one(sources: &Sources, checkpoint: &CheckpointInfo) -> ScenarioResult {
    let manifest = sources.manifest(&checkpoint.manifest).await?;
    let mut state = State::blank(&manifest.layout);
    restore(sources, &manifest, &mut StateBytes::new(state.tensors())?, &LIMITS).await?;
    match state == State::of(checkpoint.step) {
        true => Ok(()),
        false => Err(broken(format!("damaged bytes of step {} were loaded", checkpoint.step))),
    }
}

/// Saves the state of a step and commits it.
pub(super) async fn checkpoint(term: &mut Term, step: u64) -> ScenarioResult<Committed> {
    checkpoint_of(term, &State::of(step), step, &LIMITS).await
}

/// Saves a state as two workers do, one slice each, and commits it.
pub(super) async fn checkpoint_of(
    term: &mut Term,
    state: &State,
    step: u64,
    limits: &Limits,
) -> ScenarioResult<Committed> {
    let mut packs = Vec::new();
    for worker in 0..2 {
        let slice = state.layout.slice(worker, 2);
        let staged = state.bytes[slice.clone()].to_vec().into();
        packs.extend(save_slice(term.run(), &state.layout, slice, staged, limits).await?);
    }
    let (run, layout) = (term.run().id().to_string(), state.layout.clone());
    let manifest = Manifest {
        format: FORMAT,
        run,
        step,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    };
    Ok(commit(term, &manifest, Some(state.digest(step))).await?)
}
