//! Why a run cannot be opened: the error of submitting, resuming and adopting, and its gRPC code.

use tonic::Status;
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_spec::Mistakes;
use whimbrel_store::{AppendError, CreateError, Ended, LogError, Outcome, ProbeError, StoreError, TermError};

use crate::open::{
    compare::{ContinuedElsewhere, NotRecovered, RecoverError},
    replicas::ReplicaError,
};

/// A run cannot be submitted, resumed or adopted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The spec has mistakes.
    #[error(transparent)]
    Spec(#[from] Mistakes),
    /// The spec in the run's log has mistakes: another version wrote it, or it is damaged.
    #[error("this version cannot read the spec stored with run {run}: {source}")]
    StoredSpec {
        /// The run.
        run: RunId,
        /// The mistakes.
        source: Mistakes,
    },
    /// No id can be made for the run.
    #[error("no id could be made for the run: {0}")]
    Name(String),
    /// The store lacks something that a run needs.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A replica cannot be used.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The run continued in another of its stores.
    #[error(transparent)]
    ContinuedElsewhere(#[from] ContinuedElsewhere),
    /// A replica has what the run's directory lacks, and it could not be copied.
    #[error(transparent)]
    NotRecovered(NotRecovered),
    /// The store's runs could not be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run's directory could not be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The run's log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No term could be started.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The run was created, and another coordinator over the same store adopted it before this one started a term.
    #[error(
        "run {run} was created, and {coordinator}, which uses the same store, has adopted it; watch it there, and do not \
         submit it again"
    )]
    AdoptedByAnother {
        /// The run.
        run: RunId,
        /// The other coordinator.
        coordinator: String,
    },
    /// The log entry that the run goes on could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The coordinator shuts down.
    #[error("the coordinator is shutting down; submit to the next one")]
    ShuttingDown,
    /// The store has no such run: the id, the store's URI.
    #[error("there is no run {0} in {1}")]
    Unknown(String, String),
    /// The run has ended for good.
    #[error("run {run} has {}; it cannot be resumed; submit a new run", outcome_text(.ended))]
    Over {
        /// The run.
        run: RunId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// The run was stopped, and no client asked to resume it.
    #[error("run {0} was stopped; resume it to continue")]
    Stopped(RunId),
    /// Another coordinator has taken the run over from this one.
    #[error("{coordinator} has taken run {run} over")]
    TakenOver {
        /// The run.
        run: RunId,
        /// The other coordinator.
        coordinator: String,
    },
    /// Opening the run panicked, which is a defect: the message.
    #[error("the coordinator has a defect: opening the run panicked: {0}")]
    Panicked(String),
    /// This coordinator hosts the run already.
    #[error("run {0} is already under way here")]
    UnderWay(RunId),
}

impl From<RecoverError> for SubmitError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Term(error) => Self::Append(error),
            RecoverError::NotRecovered(error) => Self::NotRecovered(error),
        }
    }
}

impl From<SubmitError> for Status {
    fn from(error: SubmitError) -> Self {
        let text = with_causes(&error);
        match error {
            SubmitError::Spec(_) => Self::invalid_argument(text),
            SubmitError::Unknown(..) => Self::not_found(text),
            SubmitError::UnderWay(_) => Self::already_exists(text),
            SubmitError::ShuttingDown => Self::unavailable(text),
            SubmitError::Name(_) | SubmitError::Panicked(_) => Self::internal(text),
            SubmitError::StoredSpec { .. }
            | SubmitError::Probe(_)
            | SubmitError::Replica(_)
            | SubmitError::ContinuedElsewhere(_)
            | SubmitError::NotRecovered(_)
            | SubmitError::Store(_)
            | SubmitError::Create(_)
            | SubmitError::Log(_)
            | SubmitError::Term(_)
            | SubmitError::AdoptedByAnother { .. }
            | SubmitError::Append(_)
            | SubmitError::Stopped(_)
            | SubmitError::TakenOver { .. }
            | SubmitError::Over { .. } => Self::failed_precondition(text),
        }
    }
}

/// How a run ended, as it follows "the run has".
fn outcome_text(ended: &Ended) -> &'static str {
    match ended.outcome {
        Outcome::Finished => "finished",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "been cancelled",
    }
}
