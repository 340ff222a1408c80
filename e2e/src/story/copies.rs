//! The acts on a run and its copy in another store.

use std::error::Error;

use whimbrel_store::{
    CheckpointSelection, CopyError, LogError, ReplicaLogError, Replicator, RunDir, Sources, collect,
    plan_copy,
};

use super::{
    KEEP, LIMITS, Played, acts, broken, chain,
    checkpoints::{check, checkpoint, restore_one},
};

/// Copies all of a run.
pub(super) async fn copy(run: &RunDir, copy: &RunDir, mut acknowledged: impl FnMut(u64)) -> Played {
    let plan = plan_copy(run, copy, CheckpointSelection::All).await?;
    let copied = plan.execute("one who moves", &LIMITS, &mut |_| ()).await?;
    match copied.skipped.first() {
        Some(left_out) => return Err(format!("step {} is left out: {}", left_out.step, left_out.why).into()),
        None => copied.committed.into_iter().for_each(&mut acknowledged),
    }
    Ok(())
}

/// A coordinator's life with a replica.
pub(super) async fn replicate(run: &RunDir, copy: &RunDir, mut acknowledged: impl FnMut(u64)) -> Played {
    let mut term = run.start_term("first").await?;
    let mut replicator = Replicator::new(run, copy, "first", KEEP, LIMITS);
    for step in [20, 30] {
        checkpoint(&mut term, step).await?;
        let lag = replicator.replicate(term.run_log(), &mut |_| ()).await?;
        match lag.newest {
            Some(newest) if newest == step => acknowledged(step),
            other => {
                return Err(format!("step {step} was replicated, and the newest there is {other:?}").into());
            }
        }
    }
    collect(&mut term, &KEEP).await?;
    Ok(())
}

/// Looks at the copy as it was left; brings it up to date; and goes on there.
pub(super) async fn take_over(
    run: &RunDir,
    copy: &RunDir,
    acknowledged: Option<u64>,
    damaged: bool,
) -> Played {
    let left = match copy.run_log().await {
        Ok(run_log) => run_log.checkpoints(),
        Err(LogError::NoRun { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let newest = left.last().map(|checkpoint| checkpoint.step);
    if newest < acknowledged {
        return Err(broken(format!(
            "the copy is said to have {acknowledged:?}, and its newest is {newest:?}"
        )));
    }
    // What the copy has damaged the other store has whole, and the copy is healed by being read.
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
        // It was taken over before, and this is a second look.
        Err(error) if went_on(error.as_ref()) => {}
        // The first store has a checkpoint that is damaged.
        Err(_) if damaged => {}
        Err(error) => return Err(error),
    }
    let expected = run.run_log().await?.checkpoints().last().map_or(0, |checkpoint| checkpoint.step);
    acts::take_over(copy, if damaged { 0 } else { expected }, damaged).await
}
