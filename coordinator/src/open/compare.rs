//! Compares the log of a run with those of its replicas, and copies what only a replica has. Part of a take-over.

use std::{
    cmp::Reverse,
    mem::take,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{sync::Semaphore, time::timeout};
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_store::{
    AppendError, CopyError, CopyProgress, Limits, LogError, Relation, RunDir, RunLog, SkippedCheckpoint,
    Term, is_ahead, newer, recover_from, relation, shell,
};

use crate::open::replicas::Replica;

/// A take-over goes on without a replica whose log cannot be read within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the progress of a copy is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(15);
/// How many runs are compared at once: a log must time out because its store is slow, not because of the other reads.
static COMPARISONS: Semaphore = Semaphore::const_new(128);
/// How many runs are copied at once: each copy has up to half a GiB of packs in memory.
static COPIES: Semaphore = Semaphore::const_new(2);

/// The run continued in another of its stores, after the log here or beside it.
#[derive(Debug, thiserror::Error)]
#[error(
    "run {run} went on at {at} ({coordinator}, epoch {epoch}){without}; resume it there: whimbrel run … --resume {}",
    shell::word(at)
)]
pub struct ContinuedElsewhere {
    /// The run.
    pub run: RunId,
    /// The run's directory in the other store.
    pub at: String,
    /// The epoch there.
    pub epoch: u64,
    /// The coordinator there.
    pub coordinator: String,
    /// ` without what was done here`, or nothing.
    without: &'static str,
}

/// A replica has what the run's directory lacks, and it could not be copied. The run does not continue without it:
/// otherwise what only the replica has would be lost.
#[derive(Debug, thiserror::Error)]
#[error(
    "{from} has {what} of run {run}, which {to} lacks, and it could not be copied; try again when {from} can be read; \
     to continue the run without it, move {from} away"
)]
pub struct NotRecovered {
    run: RunId,
    from: String,
    to: String,
    what: String,
    source: CopyError,
}

/// Why [`Comparison::recover`] failed.
#[derive(Debug)]
pub(crate) enum RecoverError {
    /// The term has been lost.
    Term(AppendError),
    /// A copy failed.
    NotRecovered(NotRecovered),
}

/// The result of comparing a run's log with those of its replicas.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// For watchers: replicas that could not be read, which does not stop a take-over, and what was copied.
    pub(crate) warnings: Vec<String>,
    /// Replicas that know more than the run's directory, and their logs; the newest checkpoint first.
    ahead: Vec<(RunDir, RunLog)>,
}

/// Compares the log of a run with those of its replicas. Fails if the run continued in one of them.
pub(crate) async fn compare(
    here: &RunDir,
    run_log: &RunLog,
    replicas: &[Replica],
) -> Result<Comparison, ContinuedElsewhere> {
    let dirs: Vec<_> = replicas.iter().filter_map(|replica| replica.dir.as_ref()).collect();
    // The semaphore is never closed; if it were, more comparisons at once would do less harm than failing.
    let _permit = if dirs.is_empty() { None } else { COMPARISONS.acquire().await.ok() };
    let logs = dirs.into_iter().map(async |dir| (dir, timeout(READ_TIMEOUT, dir.run_log()).await));
    let mut comparison = Comparison::default();
    for (dir, log) in join_all(logs).await {
        let at = dir.uri();
        let there = match log {
            Ok(Ok(there)) => there,
            Ok(Err(LogError::NoRun { .. })) => continue,
            Ok(Err(error)) => {
                let why = with_causes(&error);
                comparison.warnings.push(format!(
                    "the replica {at} cannot be read ({why}); it is not known whether the run continued there"
                ));
                continue;
            }
            Err(_) => {
                let seconds = READ_TIMEOUT.as_secs();
                comparison.warnings.push(format!(
                    "the replica {at} did not answer within {seconds} s; it is not known whether the run continued there"
                ));
                continue;
            }
        };
        let without = match relation(run_log, &there) {
            Relation::Ahead => "",
            Relation::Diverged => " without what was done here",
            // It may still have what the run's directory lost.
            Relation::Behind | Relation::Same => {
                if is_ahead(&there, run_log) {
                    comparison.ahead.push((dir.clone(), there));
                }
                continue;
            }
        };
        return Err(ContinuedElsewhere {
            run: here.id().clone(),
            at: at.to_owned(),
            epoch: there.epoch(),
            coordinator: there.leader().to_owned(),
            without,
        });
    }
    comparison.ahead.sort_by_key(|(_, there)| Reverse(there.newest_checkpoint().map(|newest| newest.origin)));
    Ok(comparison)
}

impl Comparison {
    /// Copies what only replicas have to the run's directory, under the new term: the newest checkpoint, and whether
    /// the run was stopped or has ended. The directory lacks this if it was a copy itself, or lost the end of its log. If one
    /// replica fails, another may have the same.
    ///
    /// Has no deadline as a whole; each request to a store has its own.
    pub(crate) async fn recover(&mut self, term: &mut Term) -> Result<(), RecoverError> {
        let mut failed = Vec::new();
        for (there, log) in take(&mut self.ahead) {
            if !is_ahead(&log, term.run_log()) {
                continue;
            }
            match self.copy(&there, term).await {
                Ok(()) => {}
                Err(CopyError::Append(error @ AppendError::Fenced { .. })) => {
                    return Err(RecoverError::Term(error));
                }
                Err(error) => {
                    let (from, to, why) = (there.uri(), term.run().uri(), with_causes(&error));
                    tracing::warn!(from, to, error = why, "cannot copy what only a replica has");
                    failed.push((there, log, error));
                }
            }
        }
        for (there, log, source) in failed {
            if is_ahead(&log, term.run_log()) {
                let newest = newer(&log, term.run_log()).pop();
                let what = newest.map(|newest| format!("a checkpoint of step {}", newest.step));
                let what = what.unwrap_or_else(|| "the end".into());
                let (run, from, to) = (there.id().clone(), there.uri().into(), term.run().uri().into());
                return Err(RecoverError::NotRecovered(NotRecovered { run, from, to, what, source }));
            }
        }
        Ok(())
    }

    async fn copy(&mut self, there: &RunDir, term: &mut Term) -> Result<(), CopyError> {
        let (from, to) = (there.uri(), term.run().uri().to_owned());
        tracing::info!(from, to, "a replica is ahead; waiting to copy from it");
        // The semaphore is never closed; if it were, more memory would do less harm than failing.
        let _permit = COPIES.acquire().await.ok();
        tracing::info!(from, to, "copying from a replica that is ahead");
        let (mut bytes, mut logged) = (0, Instant::now());
        let mut progress = |progress| {
            let (CopyProgress::Moved { bytes: copied } | CopyProgress::Found { bytes: copied }) = progress
            else {
                return;
            };
            bytes += copied;
            if logged.elapsed() >= LOG_INTERVAL {
                logged = Instant::now();
                tracing::info!(from, bytes, "copying from a replica that is ahead");
            }
        };
        let copied = recover_from(term, there, &Limits::default(), &mut progress).await?;
        for SkippedCheckpoint { step, why, .. } in &copied.skipped {
            let why = with_causes(why);
            self.warnings
                .push(format!("{from} has a newer checkpoint, of step {step}, that is damaged: {why}"));
        }
        for step in &copied.committed {
            self.warnings.push(format!("{from} had a newer checkpoint, of step {step}; it is here now"));
        }
        Ok(())
    }
}
