//! What a copy has more than the directory it was made from.
//!
//! A copy is never ahead of its source unless the source lost something: its log came back from a backup, or its store
//! fell back to an earlier state. Nor is a directory that was resumed as a copy ahead of the one that it followed until
//! then. Either way the newest checkpoint is elsewhere, and the run is to go on from it.
//!
//! The term here has been taken by then, and the other log's is one before it: nothing is written but by the one
//! decider. The checkpoint keeps its [`Origin`](crate::Origin), so that it is as old as it was, and older than whatever
//! this term commits. The other directory is thereby what every copy is after a new term:
//! [`Behind`](crate::Relation::Behind), and brought into step by the next replication.
//!
//! A coordinator whose store falls back while it is leading the run knows entries that are no longer there. It cannot be fenced by
//! those that take their numbers, and is to be stopped before its run is taken up.

use crate::{
    checkpoint::save::Limits,
    copy::{Copied, CopyError, CopyProgress, LeftOut, Unusable, plan, run_outcome},
    log::{
        lineage::{Relation, refusal, relation},
        run_dir::RunDir,
        run_log::{CheckpointInfo, RunLog},
        term::Term,
    },
};

/// Whether [`recover_from`] has something to bring from a directory with the log `copy` to one with the log `here`.
pub fn is_ahead(copy: &RunLog, here: &RunLog) -> bool {
    !newer(copy, here).is_empty() || run_outcome::missing(copy, here).is_some()
}

/// The checkpoints of a copy that are newer than the newest here, newest last, but for those that were found to be damaged
/// here.
pub fn newer(copy: &RunLog, here: &RunLog) -> Vec<CheckpointInfo> {
    let known = here.all_checkpoints();
    let newest = known.iter().rfind(|checkpoint| checkpoint.quarantined.is_none());
    let newest = newest.map(|checkpoint| checkpoint.origin);
    let put_aside = |checkpoint: &CheckpointInfo| {
        known.iter().any(|other| other.manifest == checkpoint.manifest && other.quarantined.is_some())
    };
    let mut newer = copy.checkpoints();
    newer.retain(|checkpoint| Some(checkpoint.origin) > newest && !put_aside(checkpoint));
    newer
}

/// Copies the newest checkpoint of `copy` to the directory whose term this is, if it is newer than the newest there,
/// and whether the run was stopped or has ended, if the log here lacks that. Where the copy has a checkpoint damaged, the
/// one before it is copied; one of a later Whimbrel is no damaged one, and nothing is copied then. `copy` must be under this
/// term or one before it.
///
/// The copy is the source here, in whatever else of this crate knows a source and a copy.
pub async fn recover_from(
    term: &mut Term,
    copy: &RunDir,
    limits: &Limits,
    progress: &mut (impl FnMut(CopyProgress) + Send),
) -> Result<Copied, CopyError> {
    let here = term.run().clone();
    plan::check_names(copy, &here)?;
    let there = copy.run_log().await?;
    if matches!(relation(term.run_log(), &there), Relation::Ahead | Relation::Diverged)
        && let Some(refusal) = refusal(&here, term.run_log(), copy, &there)
    {
        return Err(refusal.into());
    }
    term.check().await?;
    let mut newer = newer(&there, term.run_log());
    let mut brought = Copied::default();
    loop {
        let wanted = newer.pop().into_iter().collect();
        let known = Some(term.run_log().clone());
        // Boxed, as a copy is awaited within much else.
        let mut plan = Box::pin(plan::compare(copy, there.clone(), &here, known, wanted)).await?;
        plan.left_out = plan.left_out.into_iter().map(damaged).collect::<Result<_, _>>()?;
        brought.add(Box::pin(plan.carry_out_as(term, limits, progress)).await?);
        if !brought.committed.is_empty() || newer.is_empty() {
            return Ok(brought);
        }
    }
}

/// A checkpoint that is left out because it is damaged, and not because it is of a later Whimbrel.
fn damaged(out: LeftOut) -> Result<LeftOut, CopyError> {
    match out {
        LeftOut { step, why: Unusable::Manifest(source), .. } if !source.is_damage() => {
            Err(CopyError::Unreadable { step, source })
        }
        damaged => Ok(damaged),
    }
}
