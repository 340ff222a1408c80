//! The scenarios that use two stores: a run, and its copy or replica.

use std::error::Error;

use whimbrel_store::{
    CheckpointSelection, CopyError, LogError, ReplicaLogError, Replicator, RunDir, Sources, collect,
    plan_copy,
};

use super::{
    checkpoints::{check, checkpoint, restore_one},
    promise::{ScenarioResult, broken, chain},
    single_store,
    stores::{KEEP, LIMITS},
};

/// Copies a whole run.
pub(super) async fn copy(run: &RunDir, copy: &RunDir, mut acknowledged: impl FnMut(u64)) -> ScenarioResult {
    let plan = plan_copy(run, copy, CheckpointSelection::All).await?;
    let copied = plan.execute("copy", &LIMITS, &mut |_| ()).await?;
    match copied.skipped.first() {
        Some(skipped) => return Err(format!("step {} is skipped: {}", skipped.step, skipped.why).into()),
        None => copied.committed.into_iter().for_each(&mut acknowledged),
    }
    Ok(())
}

/// One term with a replica: two checkpoints, each replicated, and a collection.
pub(super) async fn replicate(
    run: &RunDir,
    copy: &RunDir,
    mut acknowledged: impl FnMut(u64),
) -> ScenarioResult {
    let mut term = run.start_term("first").await?;
    let mut replicator = Replicator::new(run, copy, "first", KEEP, LIMITS);
    for step in [20, 30] {
        checkpoint(&mut term, step).await?;
        let lag = replicator.replicate(term.run_log(), &mut |_| ()).await?;
        match lag.newest {
            Some(newest) if newest == step => acknowledged(step),
            other => {
                return Err(format!(
                    "step {step} was replicated, but the newest checkpoint in the replica is {other:?}"
                )
                .into());
            }
        }
    }
    collect(&mut term, &KEEP).await?;
    Ok(())
}

/// Checks the copy as it was left, brings it up to date, and takes the run over there.
pub(super) async fn take_over(
    run: &RunDir,
    copy: &RunDir,
    acknowledged: Option<u64>,
    damaged: bool,
) -> ScenarioResult {
    let left = match copy.run_log().await {
        Ok(run_log) => run_log.checkpoints(),
        Err(LogError::NoRun { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let newest = left.last().map(|checkpoint| checkpoint.step);
    if newest < acknowledged {
        return Err(broken(format!(
            "step {acknowledged:?} was acknowledged, but the newest checkpoint of the copy is {newest:?}"
        )));
    }
    // The other store has the whole bytes of a damaged pack. Reading the copy repairs it.
    let sources = Sources::new(copy.clone()).with_replica(run.clone());
    for checkpoint in &left {
        let whole = match damaged {
            false => check(copy, checkpoint).await,
            true => restore_one(&sources, checkpoint).await,
        };
        if let Err(error) = whole {
            return Err(broken(format!("step {} of the copy: {}", checkpoint.step, chain(error.as_ref()))));
        }
    }
    let went_on = |error: &(dyn Error + Send + Sync + 'static)| {
        matches!(error.downcast_ref(), Some(CopyError::Replica(ReplicaLogError::WentOn { .. })))
    };
    match self::copy(run, copy, |_| ()).await {
        Ok(()) => {}
        // The copy was taken over by the first check; this is the second.
        Err(error) if went_on(error.as_ref()) => {}
        // The first store has a damaged checkpoint.
        Err(_) if damaged => {}
        Err(error) => return Err(error),
    }
    let expected = run.run_log().await?.checkpoints().last().map_or(0, |checkpoint| checkpoint.step);
    single_store::take_over(copy, if damaged { 0 } else { expected }, damaged).await
}
