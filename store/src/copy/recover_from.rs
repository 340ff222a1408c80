//! Recovering what a run's directory lost from a copy of it. A coordinator calls [`recover_from`] when it takes a run
//! over.
//!
//! A copy is ahead of its source only if the source lost something: its log was restored from a backup, or its store
//! fell back to an earlier state. A directory that was resumed as a copy may also be behind the directory that it
//! followed before. In both cases the newest checkpoint is elsewhere, and the run goes on from there.
//!
//! By then the caller holds the term here, and the other log's term precedes it: only the holder of the newest term writes. A
//! recovered checkpoint keeps its [`Origin`](crate::Origin), so it is older than whatever this term commits. The other
//! directory is [`Behind`](crate::Relation::Behind) after that, as every copy is after a new term, and the next
//! replication updates it.
//!
//! If a store falls back while a coordinator holds the run's term, that coordinator has read entries that no longer
//! exist. New entries that reuse their numbers do not fence it: stop it before its run is taken over.

use crate::{
    copy::{
        ahead::newer,
        error::CopyError,
        plan::{check_names, plan_work},
        report::{Copied, CopyProgress, SkipReason, SkippedCheckpoint},
    },
    log::{Relation, RunDir, Term, refusal, relation},
    object::Limits,
};

/// Copies the newest checkpoint of `copy` to the directory of `term` if it is newer than the newest there, and the run
/// outcome if the log there lacks it. `copy` must be under this term or one before it.
///
/// If the checkpoint is damaged in the copy, the one before it is copied. If it is of a later Whimbrel, nothing is
/// copied: that is an error.
pub async fn recover_from(
    term: &mut Term,
    copy: &RunDir,
    limits: &Limits,
    progress: &mut (impl FnMut(CopyProgress) + Send),
) -> Result<Copied, CopyError> {
    let here = term.run().clone();
    check_names(copy, &here)?;
    let copy_log = copy.run_log().await?;
    if matches!(relation(term.run_log(), &copy_log), Relation::Ahead | Relation::Diverged)
        && let Some(refusal) = refusal(&here, term.run_log(), copy, &copy_log)
    {
        return Err(refusal.into());
    }
    term.check().await?;
    let mut newer = newer(&copy_log, term.run_log());
    let mut recovered = Copied::default();
    loop {
        let newest = newer.pop();
        let wanted = newest.iter().collect();
        // Boxed to keep the futures of callers small.
        let mut work = Box::pin(plan_work(copy, &here, Some(term.run_log()), wanted, None)).await?;
        work.skipped = work.skipped.into_iter().map(only_damaged).collect::<Result<_, _>>()?;
        recovered.add(Box::pin(work.execute_under(term, Some(&copy_log), limits, progress)).await?);
        if !recovered.committed.is_empty() || newer.is_empty() {
            return Ok(recovered);
        }
    }
}

/// Passes on a checkpoint that is damaged. One of a later Whimbrel is an error.
fn only_damaged(skipped: SkippedCheckpoint) -> Result<SkippedCheckpoint, CopyError> {
    match skipped {
        SkippedCheckpoint { step, why: SkipReason::Manifest(source), .. } if !source.is_damage() => {
            Err(CopyError::Unreadable { step, source })
        }
        damaged => Ok(damaged),
    }
}
