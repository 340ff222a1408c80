//! How a run's directory stands to another of the same run.

use indicatif::HumanBytes;
use serde::Serialize;
use whimbrel_store::{CheckpointSelection, Relation, RunDir, RunLog, plan_copy, relation};

use super::locate::history_of;
use crate::exit::Failure;

/// There is one directory, where two were to be compared.
#[derive(Debug, thiserror::Error)]
#[error(
    "{uri} is the very directory that it is to be compared with; name a copy of the run in another store"
)]
struct Itself {
    uri: String,
}

/// Two runs are no copies of each other.
#[derive(Debug, thiserror::Error)]
#[error("{uri} is another run than {against}; name a copy of the run in another store")]
struct AnotherRun {
    uri: String,
    against: String,
}

/// Which of two directories is ahead, and what the one lacks of the other.
#[derive(Debug, Serialize)]
pub(super) struct Stands {
    against: String,
    relation: &'static str,
    /// Steps between the newest checkpoint here and there; null where the other is not to be copied here.
    steps: Option<u64>,
    /// Checkpoints that are not here, and the packs that would have to move.
    checkpoints: Option<usize>,
    packs: Option<usize>,
    bytes: Option<u64>,
    /// Checkpoints that are not here and cannot be read there.
    left_out: Option<usize>,
}

impl Stands {
    /// How `run` stands to `other`.
    pub(super) async fn of(run: &RunDir, run_log: &RunLog, other: &RunDir) -> Result<Self, Failure> {
        if run.uri() == other.uri() {
            return Err(Failure::bad_input(Itself { uri: other.uri().to_owned() }));
        }
        let theirs = history_of(other).await?;
        let against = other.uri().to_owned();
        if !run_log.is_of_the_run_of(&theirs) {
            return Err(Failure::bad_input(AnotherRun { uri: run.uri().to_owned(), against }));
        }
        let relation = relation(&theirs, run_log);
        let word = match relation {
            Relation::Behind => "behind",
            Relation::Same => "same",
            Relation::Ahead => "ahead",
            Relation::Diverged => "diverged",
        };
        let mut stands = Self {
            against,
            relation: word,
            steps: None,
            checkpoints: None,
            packs: None,
            bytes: None,
            left_out: None,
        };
        // What cannot be copied here lacks nothing that this could be told of.
        let is_source = relation == Relation::Same && run_log.replica_of().is_none();
        if matches!(relation, Relation::Behind | Relation::Same) && !is_source {
            let plan = plan_copy(other, run, CheckpointSelection::All).await?;
            let newest = |run_log: &RunLog| run_log.checkpoints().last().map_or(0, |newest| newest.step);
            stands.steps = Some(newest(&theirs).saturating_sub(newest(run_log)));
            stands.checkpoints = Some(plan.checkpoints.iter().filter(|planned| !planned.committed).count());
            stands.packs = Some(plan.to_move.packs);
            stands.bytes = Some(plan.to_move.bytes);
            let here = run_log.checkpoints();
            let is_here = |manifest: &str| here.iter().any(|checkpoint| checkpoint.manifest == manifest);
            stands.left_out = Some(plan.skipped.iter().filter(|out| !is_here(&out.manifest)).count());
        }
        Ok(stands)
    }

    pub(super) fn words(&self) -> String {
        let Self { against, relation, .. } = self;
        let cannot_be_read = match self.left_out {
            None | Some(0) => String::new(),
            Some(left_out) => format!(" and {left_out} that cannot be read there"),
        };
        match (*relation, self.steps, self.checkpoints, self.bytes) {
            ("ahead", ..) => format!("ahead of {against}: the run went on here"),
            ("diverged", ..) => {
                format!("apart from {against}: the run went on in both, each without the other")
            }
            (_, Some(0), Some(0), Some(0)) if cannot_be_read.is_empty() => format!("in step with {against}"),
            (_, Some(steps), Some(checkpoints), Some(bytes)) => format!(
                "{steps} steps behind {against}: lacks {checkpoints} of its checkpoints{cannot_be_read}, {} to copy",
                HumanBytes(bytes)
            ),
            _ => format!("the run itself, of which {against} is a copy"),
        }
    }
}
