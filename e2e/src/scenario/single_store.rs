//! The scenarios that use one store.

use whimbrel_state::StateBytes;
use whimbrel_store::{HostedBy, Limits, RunDir, collect, restore, verify};

use super::{
    checkpoints::{check, check_all, checkpoint, checkpoint_of, restore_one},
    promise::{ScenarioResult, broken},
    state::State,
    stores::KEEP,
};

/// Creates the run and the checkpoint of step 10.
pub(super) async fn prepare(run: &RunDir) -> ScenarioResult {
    run.create("[run]\nname = \"r\"\n", HostedBy::Embedded).await?;
    run.put_output(1, 0, "a worker says\n".into()).await?;
    let mut term = run.start_term("setup").await?;
    checkpoint(&mut term, 10).await?;
    Ok(())
}

/// One term: two checkpoints and a collection.
pub(super) async fn live(run: &RunDir, mut acknowledged: impl FnMut(u64)) -> ScenarioResult {
    let mut term = run.start_term("first").await?;
    for step in [20, 30] {
        checkpoint(&mut term, step).await?;
        acknowledged(step);
    }
    collect(&mut term, &KEEP).await?;
    Ok(())
}

/// Restores the checkpoint that a resumed run would.
pub(super) async fn restore_newest(run: &RunDir) -> ScenarioResult {
    let run_log = run.run_log().await?;
    let checkpoints = run_log.checkpoints();
    let newest = checkpoints.last().ok_or_else(|| broken("no checkpoint is left"))?;
    restore_one(&run.clone().into(), newest).await
}

/// Saves a large state.
pub(super) async fn save_much(
    run: &RunDir,
    mebibytes: usize,
    mut acknowledged: impl FnMut(u64),
) -> ScenarioResult {
    run.create("[run]\nname = \"r\"\n", HostedBy::Embedded).await?;
    let mut term = run.start_term("large").await?;
    let state = State::random(mebibytes << 20);
    checkpoint_of(&mut term, &state, 10, &Limits::default()).await?;
    acknowledged(10);
    Ok(())
}

/// Verifies and restores the newest checkpoint, and compares both with the digest in the run log.
pub(super) async fn verify_newest(run: &RunDir) -> ScenarioResult {
    let run_log = run.run_log().await?;
    let newest = run_log.checkpoints().pop().ok_or_else(|| broken("no checkpoint is left"))?;
    let manifest = run.manifest(&newest.manifest).await?;
    let verified = verify(run, &manifest, &Limits::default(), |_| {}).await?;
    match newest.state {
        Some(state) if state == verified.state => {}
        other => {
            return Err(broken(format!("the log has {other:?}, the packs have {:?}", verified.state)));
        }
    }
    let mut state = State::blank(&manifest.layout);
    restore(&run.clone().into(), &manifest, &mut StateBytes::new(state.tensors())?, &Limits::default())
        .await?;
    match state.digest(newest.step) == verified.state {
        true => Ok(()),
        false => Err(broken(format!("damaged bytes of step {} were loaded", newest.step))),
    }
}

/// Another term: checks every checkpoint, then commits another one and collects.
pub(super) async fn take_over(run: &RunDir, acknowledged: u64, damaged: bool) -> ScenarioResult {
    let mut term = run.start_term("second").await?;
    let newest = term.run_log().checkpoints().last().map(|checkpoint| checkpoint.step);
    if newest < Some(acknowledged) {
        return Err(broken(format!(
            "step {acknowledged} was acknowledged, but the newest checkpoint is {newest:?}"
        )));
    }
    check_all(&mut term, damaged).await?;
    let next = checkpoint(&mut term, newest.unwrap_or_default() + 10).await?;
    collect(&mut term, &KEEP).await?;
    let found = term.run_log().checkpoints().last().cloned();
    match found {
        Some(found) if found.manifest == next.manifest => check(run, &found).await,
        found => {
            Err(broken(format!("step {} was committed, but the newest checkpoint is {found:?}", next.step)))
        }
    }
}
