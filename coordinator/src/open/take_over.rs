//! Takes a run over: the one place where a coordinator starts a term of a run that exists.

use std::collections::BTreeSet;

use whimbrel_plan::RunId;
use whimbrel_spec::RunSpec;
use whimbrel_store::{Record, RunDir, RunLog, Store};

use crate::open::{OpenedRun, compare::compare, facts, replicas::replicas_of, submit_error::SubmitError};

/// Why a run is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A client asks for it: also from a coordinator that leads the run, and also if it was stopped.
    Resume,
    /// The run goes on, and no other coordinator has it: not if a term has been started since its log was read.
    Adopt,
}

/// Starts a term of a run whose log is `run_log`, in these steps:
///
/// 1. Compare the log with those of the replicas. Refuse if the run continued in one of them.
/// 2. Start the term. From here on no coordinator with a lower epoch adds to the log.
/// 3. Copy what only a replica has to the run's directory.
/// 4. Refuse if the run has ended by now, or, when adopting, was stopped.
/// 5. Record that the run goes on, and from which step.
pub(crate) async fn take_over(
    store: &Store,
    dir: RunDir,
    run_log: &RunLog,
    coordinator: &str,
    reason: Reason,
) -> Result<OpenedRun, SubmitError> {
    let spec = stored_spec(dir.id(), run_log)?;
    let replicas = replicas_of(store, dir.id(), &spec);
    let mut comparison = match compare(&dir, run_log, &replicas).await {
        Ok(comparison) => comparison,
        // Perhaps the run went on here after the log was read, and a replica has that already: read the log again.
        Err(_) => compare(&dir, &dir.run_log().await?, &replicas).await?,
    };
    let mut term = match reason {
        Reason::Resume => dir.start_term(coordinator).await?,
        Reason::Adopt => dir.start_term_after(run_log.epoch(), coordinator).await?,
    };
    let recovered = comparison.recover(&mut term).await;
    let warnings = comparison.warnings;
    for text in &warnings {
        tracing::warn!(run = %dir.id(), "{text}");
    }
    recovered?;
    if let Some(ended) = term.run_log().ended() {
        return Err(SubmitError::Over { run: dir.id().clone(), ended: Box::new(ended.clone()) });
    }
    if reason == Reason::Adopt && term.run_log().stopped().is_some() {
        return Err(SubmitError::Stopped(dir.id().clone()));
    }
    let start = facts::start_without(term.run_log(), &BTreeSet::new());
    // Also recorded for a run that was not stopped as far as its log here says: a stop or an end before this entry that only an
    // unreachable store knows of no longer counts.
    term.append(Record::Resumed { step: start.step() }).await?;
    let past = facts::past(term.run_log());
    Ok(OpenedRun { start, past, dir, spec, term, replicas, warnings })
}

/// The spec in a run's log.
pub(crate) fn stored_spec(run: &RunId, run_log: &RunLog) -> Result<RunSpec, SubmitError> {
    RunSpec::parse("the stored spec", run_log.spec(), &[])
        .map_err(|source| SubmitError::StoredSpec { run: run.clone(), source })
}
