//! Compares the directory of a run with another directory of the same run.

use whimbrel_store::{CheckpointSelection, Relation, RunDir, RunLog, plan_copy, relation};

use super::locate::read_log;
use crate::{
    exit::Failure,
    output::checkpoint::{Comparison, Lacks},
};

/// Two directories cannot be compared.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(
        "{uri} is the same directory as the one that it is compared with; name a copy of the run in another store"
    )]
    Same { uri: String },
    #[error("{uri} is another run than {against}; name a copy of the run in another store")]
    AnotherRun { uri: String, against: String },
}

/// Compares `run` with `other`. Reads both logs and, where `other` can be copied to `run`, plans that copy.
pub(super) async fn compare(run: &RunDir, run_log: &RunLog, other: &RunDir) -> Result<Comparison, Failure> {
    let (uri, against) = (run.uri().to_owned(), other.uri().to_owned());
    if uri == against {
        return Err(Failure::bad_input(CompareError::Same { uri }));
    }
    let other_log = read_log(other).await?;
    if !run_log.is_of_the_run_of(&other_log) {
        return Err(Failure::bad_input(CompareError::AnotherRun { uri, against }));
    }
    let relation = relation(&other_log, run_log);
    // The run itself lacks nothing of its copies.
    let is_source = relation == Relation::Same && run_log.replica_of().is_none();
    if is_source || matches!(relation, Relation::Ahead | Relation::Diverged) {
        return Ok(Comparison { against, relation, lacks: None });
    }
    let plan = plan_copy(other, run, CheckpointSelection::All).await?;
    let newest = |run_log: &RunLog| run_log.newest_checkpoint().map_or(0, |newest| newest.step);
    let is_here = |manifest: &str| run_log.usable_checkpoint(manifest).is_some();
    let lacks = Lacks {
        steps: newest(&other_log).saturating_sub(newest(run_log)),
        checkpoints: plan.work.checkpoints.iter().filter(|planned| !planned.committed).count(),
        packs: plan.work.to_move.packs.objects,
        bytes: plan.work.to_move.packs.bytes,
        left_out: plan.work.skipped.iter().filter(|out| !is_here(&out.manifest)).count(),
    };
    Ok(Comparison { against, relation, lacks: Some(lacks) })
}
