//! Keeping a replica of a run up to date.
//!
//! The coordinator has a [`Replicator`] for each replica of a run that it leads, and calls it after each commit. The
//! replicator copies the kept checkpoints that the replica lacks, the newest first, and collects in the replica by the
//! same retention. It never blocks the run: a replica that cannot be reached lags, and the next call makes up for it.

use std::{collections::BTreeSet, fmt, mem::take};

use crate::{
    copy::{
        error::CopyError,
        plan::{CopyWork, check_names, has_usable, plan_work},
        report::{Amount, CopyProgress, SkippedCheckpoint},
    },
    gc::{CollectError, Collector, Retention},
    log::{AppendError, Outcome, Record, ReplicaLogError, RunDir, RunLog, Term, refusal},
    object::Limits,
};

/// Copies a run to one replica. It belongs to the coordinator that leads the run.
#[derive(Debug)]
pub struct Replicator {
    primary: RunDir,
    replica: RunDir,
    who: String,
    retention: Retention,
    limits: Limits,
    term: Option<Term>,
    collector: Collector,
    /// Found when the replica's term was taken, and not reported yet.
    unreplicated: Vec<Unreplicated>,
}

/// How far a replica is behind its run.
#[derive(Debug, Default)]
pub struct Lag {
    /// The step of the newest usable checkpoint in the replica; `None` if there is none.
    pub newest: Option<u64>,
    /// The step of the run's newest checkpoint; `None` if there is none.
    pub newest_of_run: Option<u64>,
    /// Packs of kept checkpoints that the replica lacks.
    pub missing: Amount,
    /// Checkpoints that cannot be copied: they are damaged in the primary, or of a later Whimbrel.
    pub skipped: Vec<SkippedCheckpoint>,
    /// What the replica knew and the run went on without. Each replicator reports it once.
    pub unreplicated: Vec<Unreplicated>,
}

/// Something that a replica knew of the run when it was first reached, and that the run's own log does not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreplicated {
    /// The furthest such checkpoint, if it is further than the one from which the run went on under its present term.
    /// It may be gone by now: it is older than all that was committed since, and is collected as such.
    Checkpoint {
        /// Its step.
        step: u64,
    },
    /// That the run was stopped.
    Stopped,
    /// That the run had ended.
    Ended(Outcome),
}

impl fmt::Display for Unreplicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint { step } => write!(f, "had a checkpoint of step {step}"),
            Self::Stopped => f.write_str("said that the run was stopped"),
            Self::Ended(Outcome::Finished) => f.write_str("said that the run has finished"),
            Self::Ended(Outcome::Failed) => f.write_str("said that the run has failed"),
            Self::Ended(Outcome::Cancelled) => f.write_str("said that the run was cancelled"),
        }
    }
}

/// Why a replica was not brought up to date. The next call makes up for it, except after [`WentOn`](Self::WentOn).
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    /// The run was resumed at the replica. The coordinator that calls the replicator must stop.
    #[error("the run went on at its replica {at} ({coordinator}, epoch {epoch}): this coordinator must stop")]
    WentOn {
        /// The replica.
        at: String,
        /// The epoch there.
        epoch: u64,
        /// The coordinator that leads the run there.
        coordinator: String,
    },
    /// Another program copies the same run to the replica, for example `whimbrel checkpoint copy`.
    #[error("{by} is copying the run to {at} as well; trying again later")]
    Superseded {
        /// The replica.
        at: String,
        /// The program that copies to it now.
        by: String,
    },
    /// The copy failed.
    #[error("cannot bring the replica {at} up to date")]
    Copy {
        /// The replica.
        at: String,
        /// Why.
        source: CopyError,
    },
    /// Old checkpoints of the replica were not deleted. The newest one is there.
    #[error("old checkpoints of the replica {at} could not be deleted")]
    Collect {
        /// The replica.
        at: String,
        /// Why.
        source: CollectError,
    },
}

impl Replicator {
    /// A replicator from `primary` to `replica`, which keeps what `retention` says. `who` names the copying program for
    /// people. It makes no request yet.
    pub fn new(primary: &RunDir, replica: &RunDir, who: &str, retention: Retention, limits: Limits) -> Self {
        Self {
            primary: primary.clone(),
            replica: replica.clone(),
            who: who.to_owned(),
            // Saves in flight go to the primary.
            retention: Retention { in_flight: Vec::new(), ..retention },
            limits,
            term: None,
            collector: Collector::default(),
            unreplicated: Vec::new(),
        }
    }

    /// Brings the replica up to date with the run, whose log is `run_log`. Returns what the replica still lacks.
    pub async fn replicate(
        &mut self,
        run_log: &RunLog,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Lag, ReplicateError> {
        check_names(&self.primary, &self.replica).map_err(|error| self.copy_error(error))?;
        let mut term = self.take_term(run_log).await?;
        let outcome = self.copy(&mut term, run_log, progress).await;
        self.term = Some(term);
        match outcome {
            Err(ReplicateError::Copy { source: CopyError::Append(AppendError::Fenced { .. }), .. })
            | Err(ReplicateError::Collect {
                source: CollectError::Append(AppendError::Fenced { .. }), ..
            }) => {
                self.term = None;
                Err(self.fenced_by(run_log).await)
            }
            outcome => outcome.map(|lag| Lag { unreplicated: take(&mut self.unreplicated), ..lag }),
        }
    }

    async fn copy(
        &mut self,
        term: &mut Term,
        run_log: &RunLog,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Lag, ReplicateError> {
        // The term knows what it wrote. Only entries that others appended since are read.
        term.check().await.map_err(|error| self.copy_error(error.into()))?;
        let (work, newest_of_run) = self.plan(run_log, term).await?;
        let copied = Box::pin(work.execute_under(term, Some(run_log), &self.limits, progress)).await;
        let copied = copied.map_err(|error| self.copy_error(error))?;
        // The packs of a skipped checkpoint stay in the replica until the checkpoint is healed.
        let retention = Retention { in_flight: copied.packs_of_skipped, ..self.retention.clone() };
        let failed = |source| ReplicateError::Collect { at: self.replica.uri().to_owned(), source };
        self.collector.collect(term, &retention).await.map_err(failed)?;
        let newest = term.run_log().newest_checkpoint().map(|checkpoint| checkpoint.step);
        let (missing, skipped) = (copied.bad, copied.skipped);
        Ok(Lag { newest, newest_of_run, missing, skipped, unreplicated: Vec::new() })
    }

    /// Plans the copy of the kept checkpoints to the replica. Returns the run's newest step, too.
    ///
    /// There may be many kept checkpoints, and a round follows each commit. While the collector knows what the replica has,
    /// only checkpoints that are not committed there are planned, and nothing is listed. Otherwise the newest few are looked
    /// at again, and what the replica has lost of them is copied again.
    async fn plan(&self, run_log: &RunLog, term: &Term) -> Result<(CopyWork, Option<u64>), ReplicateError> {
        let replica_log = term.run_log();
        if let Some(refusal) = refusal(&self.primary, run_log, &self.replica, replica_log) {
            return Err(self.copy_error(refusal.into()));
        }
        let mut wanted = self.retention.kept(run_log);
        let newest_of_run = wanted.last().map(|checkpoint| checkpoint.step);
        let kept = self.collector.kept_whole(term);
        let looked_at = if kept.is_some() { 0 } else { self.retention.last.max(1) as usize };
        let newest = wanted.split_off(wanted.len().saturating_sub(looked_at));
        wanted.retain(|checkpoint| !has_usable(replica_log, checkpoint));
        wanted.extend(newest);
        let work = plan_work(&self.primary, &self.replica, Some(replica_log), wanted, kept).await;
        Ok((work.map_err(|error| self.copy_error(error))?, newest_of_run))
    }

    /// The term over the replica: the one held, if it is a replica of the run's present term; otherwise a new one.
    async fn take_term(&mut self, run_log: &RunLog) -> Result<Term, ReplicateError> {
        let held = self.term.take().filter(|term| term.run_log().identity() == run_log.identity());
        if let Some(term) = held {
            return Ok(term);
        }
        let term = self.replica.become_replica_of(&self.primary, run_log, &self.who).await;
        let term = term.map_err(|error| self.copy_error(error.into()))?;
        if self.unreplicated.is_empty() {
            self.unreplicated = unreplicated(term.run_log(), run_log);
        }
        Ok(term)
    }

    /// The error of a failed copy. That the run went on at the replica is an error of its own.
    fn copy_error(&self, error: CopyError) -> ReplicateError {
        match error {
            CopyError::Replica(
                ReplicaLogError::WentOn { at, epoch, coordinator, .. }
                | ReplicaLogError::Diverged { at, epoch, coordinator, .. },
            ) => ReplicateError::WentOn { at, epoch, coordinator },
            source => ReplicateError::Copy { at: self.replica.uri().to_owned(), source },
        }
    }

    /// The error after another program took the term over the replica: it copies the same run, or the run goes on
    /// there.
    async fn fenced_by(&self, run_log: &RunLog) -> ReplicateError {
        let other = match self.replica.run_log().await {
            Ok(other) => other,
            Err(error) => return self.copy_error(ReplicaLogError::Log(error).into()),
        };
        match refusal(&self.primary, run_log, &self.replica, &other) {
            Some(refusal) => self.copy_error(refusal.into()),
            None => ReplicateError::Superseded {
                at: self.replica.uri().to_owned(),
                by: other.leader().to_owned(),
            },
        }
    }
}

/// What the log of a replica contains of the time before the run's present term, and the run's own log does not.
fn unreplicated(replica: &RunLog, run_log: &RunLog) -> Vec<Unreplicated> {
    let (mut known, mut resumed_from) = (BTreeSet::new(), None);
    for entry in run_log.entries() {
        let Record::Checkpoint { step, manifest, origin, .. } = &entry.record else { continue };
        known.insert(manifest);
        if origin.map_or(entry.epoch, |origin| origin.epoch) < run_log.epoch() {
            resumed_from = resumed_from.max(Some(*step));
        }
    }
    let checkpoints = replica.checkpoints();
    let unreplicated = checkpoints.iter().filter(|checkpoint| {
        // Another copy may have brought a checkpoint of the present term meanwhile.
        checkpoint.origin.epoch < run_log.epoch() && !known.contains(&checkpoint.manifest)
    });
    let furthest =
        unreplicated.map(|checkpoint| checkpoint.step).filter(|&step| Some(step) > resumed_from).max();
    let outcome = replica.last_status_entry().map(|entry| &entry.record);
    let outcome = outcome.filter(|outcome| run_log.entries().iter().all(|entry| entry.record != **outcome));
    let outcome = outcome.and_then(|outcome| match outcome {
        Record::Stopped(_) => Some(Unreplicated::Stopped),
        Record::Ended(ended) => Some(Unreplicated::Ended(ended.outcome)),
        _ => None,
    });
    furthest.map(|step| Unreplicated::Checkpoint { step }).into_iter().chain(outcome).collect()
}
