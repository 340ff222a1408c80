//! Resumes a run that is in the store, because a client asks for it.

use whimbrel_plan::RunId;
use whimbrel_store::Store;

use crate::open::{
    OpenedRun,
    submit_error::SubmitError,
    take_over::{Reason, take_over},
};

/// Starts a term of the run, whatever coordinator holds it now. The driver calls it for a client's `Submit`. Refuses a run that
/// is not in the store or has ended for good.
pub(crate) async fn resume(store: &Store, run: &str, coordinator: &str) -> Result<OpenedRun, SubmitError> {
    let unknown = || SubmitError::Unknown(run.to_owned(), store.uri().to_owned());
    let id: RunId = run.parse().map_err(|_| unknown())?;
    if !store.runs().await?.contains(&id) {
        return Err(unknown());
    }
    let dir = store.run(&id);
    let run_log = dir.run_log().await?;
    if let Some(ended) = run_log.ended() {
        return Err(SubmitError::Over { run: id, ended: Box::new(ended.clone()) });
    }
    store.probe().await?;
    take_over(store, dir, &run_log, coordinator, Reason::Resume).await
}
