//! The unfinished runs of a spec in a store: those that `whimbrel run` may resume.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_spec::RunSpec;
use whimbrel_store::{HostedBy, LogError, RunLog, Store, StoreError};

use super::run_lock::RunLock;

/// Run logs read at a time.
const AT_A_TIME: usize = 8;

/// A run of the spec's name that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unfinished {
    pub(super) id: RunId,
    /// Steps applied in its newest checkpoint.
    step: u64,
    steps: u64,
    /// It was stopped; otherwise it was interrupted.
    pub(super) stopped: bool,
    /// Its spec trains the same.
    pub(super) same: bool,
    /// Another process on this machine runs it.
    pub(super) busy: bool,
    /// The URI of the run itself, where this is a replica.
    pub(super) replica_of: Option<String>,
    /// The time of its last log entry.
    last: DateTime<Utc>,
}

impl Unfinished {
    /// `char-lm-k3x9qa stopped at step 840 of 2000`
    pub(super) fn status(&self) -> String {
        let Self { id, step, steps, .. } = self;
        match (self.stopped, step) {
            (true, _) => format!("{id} stopped at step {step} of {steps}"),
            (false, 0) => format!("{id} was interrupted before its first checkpoint"),
            (false, _) => format!("{id} was interrupted, with a checkpoint at step {step} of {steps}"),
        }
    }
}

/// Finds the unfinished runs of the spec's name, the one that was written last first. A run that was submitted to a
/// coordinator service is left to that service until it is stopped.
pub(super) async fn find(store: &Store, spec: &RunSpec) -> Result<Vec<Unfinished>, StoreError> {
    let prefix = format!("{}-", spec.name);
    let ids = store.runs().await?.into_iter().filter(|id| id.as_str().starts_with(&prefix));
    let read = |id: RunId| async move {
        let dir = store.run(&id);
        match dir.run_log().await {
            Ok(run_log) => Ok(classify(id, dir.uri(), &run_log, spec)),
            Err(LogError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(run = %id, error = with_causes(&error), "cannot use the log of this run; it is not offered");
                Ok(None)
            }
        }
    };
    let mut found: Vec<Unfinished> = stream::iter(ids.map(read))
        .buffered(AT_A_TIME)
        .try_filter_map(async |run| Ok(run))
        .try_collect()
        .await?;
    found.sort_by_key(|run| Reverse(run.last));
    Ok(found)
}

/// Classifies a run by its log; `None` if there is nothing to resume.
fn classify(id: RunId, uri: &str, run_log: &RunLog, spec: &RunSpec) -> Option<Unfinished> {
    let stopped = run_log.stopped().is_some();
    if run_log.ended().is_some() || (run_log.hosted_by() == HostedBy::Service && !stopped) {
        return None;
    }
    let stored = RunSpec::parse("the stored spec", run_log.spec(), &[]).ok()?;
    if stored.name != spec.name {
        return None;
    }
    Some(Unfinished {
        step: run_log.newest_checkpoint().map_or(0, |checkpoint| checkpoint.step),
        steps: stored.train.steps,
        stopped,
        same: same_training(&stored, spec),
        busy: RunLock::take(uri).is_none(),
        replica_of: run_log.replica_of().map(|replica| replica.source.clone()),
        last: run_log.entries().last().map_or(DateTime::<Utc>::MIN_UTC, |entry| entry.time),
        id,
    })
}

/// Whether two specs are equal except for their workers, store and replicas.
fn same_training(a: &RunSpec, b: &RunSpec) -> bool {
    let mut b = b.clone();
    b.workers.clone_from(&a.workers);
    b.checkpoint.store.clone_from(&a.checkpoint.store);
    b.checkpoint.replicas.clone_from(&a.checkpoint.replicas);
    *a == b
}
