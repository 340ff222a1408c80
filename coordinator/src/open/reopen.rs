//! Opens a run again after a panic has ended its term.

use whimbrel_plan::RunId;
use whimbrel_store::{Store, TermError};

use crate::open::{
    OpenedRun,
    submit_error::SubmitError,
    take_over::{Reason, take_over},
};

/// Starts another term of a run that this coordinator led under `epoch`. The driver calls it after a pause. Refuses a run that
/// was stopped or has ended, or that another coordinator has taken over since.
pub(crate) async fn reopen(
    store: &Store,
    run: &RunId,
    epoch: u64,
    coordinator: &str,
) -> Result<OpenedRun, SubmitError> {
    let dir = store.run(run);
    let run_log = dir.run_log().await?;
    if run_log.epoch() > epoch && run_log.coordinator() != Some(coordinator) {
        let (run, coordinator) = (run.clone(), run_log.leader().to_owned());
        return Err(SubmitError::TakenOver { run, coordinator });
    }
    if let Some(ended) = run_log.ended() {
        return Err(SubmitError::Over { run: run.clone(), ended: Box::new(ended.clone()) });
    }
    if run_log.stopped().is_some() {
        return Err(SubmitError::Stopped(run.clone()));
    }
    let opened = take_over(store, dir, &run_log, coordinator, Reason::Adopt).await;
    opened.map_err(|error| match error {
        SubmitError::Term(TermError::Taken { coordinator, .. }) => {
            SubmitError::TakenOver { run: run.clone(), coordinator }
        }
        error => error,
    })
}
