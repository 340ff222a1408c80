//! Keeping a replica in step behind a run.
//!
//! The coordinator that holds a run has a [`Replicator`] for each replica, and calls it after each commit. It copies
//! what the replica lacks of what is kept, the newest first, and collects there by the same retention. It never holds up
//! the run: a replica that cannot be reached lags, and the next call makes up for it.

use std::{collections::BTreeSet, fmt, mem::take};

use crate::{
    checkpoint::save::Limits,
    copy::{Amount, CopyError, CopyPlan, CopyProgress, LeftOut, Usable, check_names, log_of, plan},
    gc::{CollectError, Collector, Retention},
    log::{
        entry::{Outcome, Record},
        lineage::{ReplicaLogError, refusal},
        run_dir::RunDir,
        run_log::RunLog,
        term::{AppendError, Term},
    },
};

/// A replica of a run, as the coordinator that holds the run sees it.
#[derive(Debug)]
pub struct Replicator {
    primary: RunDir,
    replica: RunDir,
    who: String,
    retention: Retention,
    limits: Limits,
    term: Option<Term>,
    collector: Collector,
    /// What the replica knew when its term was taken, and is yet to be told of.
    unreplicated: Vec<Unreplicated>,
}

/// How far a replica is behind.
#[derive(Debug, Default)]
pub struct Lag {
    /// The step of the newest checkpoint that can be used in the replica; `None` if there is none.
    pub newest: Option<u64>,
    /// The step of the run's newest checkpoint; `None` if there is none.
    pub newest_of_run: Option<u64>,
    /// Packs that the replica lacks of the checkpoints that are kept.
    pub missing: Amount,
    /// Checkpoints that cannot be copied, since they are damaged in the primary, or of a later Whimbrel.
    pub left_out: Vec<LeftOut>,
    /// What the replica knew of and the run went on without. Told once by each that keeps the replica.
    pub unreplicated: Vec<Unreplicated>,
}

/// What a replica knew of a run, when it was first reached, and the run's own log says nothing of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreplicated {
    /// The furthest checkpoint of those, if it is further than where the run went on from under its present term. It
    /// may be gone by now: it is older than all that was committed since, and collected as such.
    Checkpoint {
        /// Its step.
        step: u64,
    },
    /// That the run was stopped.
    Stopped,
    /// That it had ended.
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

impl Lag {
    /// Steps from the replica's newest checkpoint to the run's.
    pub fn steps(&self) -> u64 {
        self.newest_of_run.unwrap_or(0).saturating_sub(self.newest.unwrap_or(0))
    }
}

/// A replication that was not made, or not in full. Except where the run [went on](Self::WentOn) elsewhere, the next one
/// makes up for it.
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    /// Somebody resumed the run at the replica. Whoever holds it here must stop.
    #[error("the run went on at its replica {at} ({coordinator}, epoch {epoch}): this coordinator must stop")]
    WentOn {
        /// The replica.
        at: String,
        /// The epoch there.
        epoch: u64,
        /// Who holds it there.
        coordinator: String,
    },
    /// Another copies the same run to the replica, a `whimbrel checkpoint copy` perhaps.
    #[error("{replica} is copying the run to {at} as well; trying again later")]
    Relieved {
        /// The replica.
        at: String,
        /// Who copies to it now.
        replica: String,
    },
    /// The copy was not made.
    #[error("cannot bring the replica {at} into step")]
    Copy {
        /// The replica.
        at: String,
        /// Why.
        source: CopyError,
    },
    /// Old checkpoints of the replica were not deleted. It has the newest.
    #[error("old checkpoints of the replica {at} could not be deleted")]
    Collect {
        /// The replica.
        at: String,
        /// Why.
        source: CollectError,
    },
}

impl Replicator {
    /// A replicator from `primary` to `replica`, which is to keep what `retention` says. `who` says who copies, in words
    /// for people. Nothing is done yet.
    pub fn new(primary: &RunDir, replica: &RunDir, who: &str, retention: Retention, limits: Limits) -> Self {
        Self {
            primary: primary.clone(),
            replica: replica.clone(),
            who: who.to_owned(),
            // What is in flight is so in the primary.
            retention: Retention { in_flight: Vec::new(), ..retention },
            limits,
            term: None,
            collector: Collector::default(),
            unreplicated: Vec::new(),
        }
    }

    /// The replica.
    pub fn replica(&self) -> &RunDir {
        &self.replica
    }

    /// How far the replica is behind the run, whose log is `history`. Nothing is written.
    pub async fn lag(&self, run_log: &RunLog) -> Result<Lag, ReplicateError> {
        let there = match &self.term {
            Some(term) => Some(term.run_log().clone()),
            None => log_of(&self.replica).await.map_err(|error| self.copy_error(error))?,
        };
        let newest = there.as_ref().and_then(|there| there.checkpoints().pop());
        let (plan, newest_of_run) = self.plan(run_log, there).await?;
        let newest = newest.map(|checkpoint| checkpoint.step);
        let (missing, left_out) = (plan.to_move, plan.left_out);
        Ok(Lag { newest, newest_of_run, missing, left_out, unreplicated: Vec::new() })
    }

    /// What the replica, whose log is `there`, lacks of what is kept; and the run's newest step. Those that are committed
    /// there and older than the newest few are taken to be whole: there may be hundreds of them.
    async fn plan(
        &self,
        run_log: &RunLog,
        there: Option<RunLog>,
    ) -> Result<(CopyPlan, Option<u64>), ReplicateError> {
        let mut wanted = self.retention.kept(run_log);
        let newest_of_run = wanted.last().map(|checkpoint| checkpoint.step);
        let newest = wanted.len().saturating_sub(self.retention.last.max(1) as usize);
        let newest = wanted.split_off(newest);
        let usable = Usable::by(there.as_ref());
        wanted.retain(|checkpoint| !usable.has(checkpoint));
        wanted.extend(newest);
        let plan = plan(&self.primary, run_log.clone(), &self.replica, there, wanted).await;
        Ok((plan.map_err(|error| self.copy_error(error))?, newest_of_run))
    }

    /// Brings the replica into step with the run, whose log is `history`, and says what it still lacks.
    pub async fn replicate(
        &mut self,
        run_log: &RunLog,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Lag, ReplicateError> {
        check_names(&self.primary, &self.replica).map_err(|error| self.copy_error(error))?;
        let mut term = self.hold(run_log).await?;
        let outcome = self.copy(&mut term, run_log, progress).await;
        self.term = Some(term);
        match outcome {
            Err(ReplicateError::Copy { source: CopyError::Append(AppendError::Fenced { .. }), .. })
            | Err(ReplicateError::Collect {
                source: CollectError::Append(AppendError::Fenced { .. }), ..
            }) => {
                self.term = None;
                Err(self.relieved(run_log).await)
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
        // What this term wrote it knows; only what others added at the end is read.
        term.check().await.map_err(|error| self.copy_error(error.into()))?;
        let (plan, newest_of_run) = self.plan(run_log, Some(term.run_log().clone())).await?;
        let copied = Box::pin(plan.carry_out_as(term, &self.limits, progress)).await;
        let copied = copied.map_err(|error| self.copy_error(error))?;
        // What a checkpoint that was left out has there already is spared for when it is healed.
        let retention = Retention { in_flight: copied.spared, ..self.retention.clone() };
        let failed = |source| ReplicateError::Collect { at: self.replica.uri().to_owned(), source };
        self.collector.collect(term, &retention).await.map_err(failed)?;
        let newest = term.run_log().checkpoints().last().map(|checkpoint| checkpoint.step);
        let (missing, left_out) = (copied.bad, copied.left_out);
        Ok(Lag { newest, newest_of_run, missing, left_out, unreplicated: Vec::new() })
    }

    /// The term over the replica: the one held, if it replicas the term that the run is under, or a new one.
    async fn hold(&mut self, run_log: &RunLog) -> Result<Term, ReplicateError> {
        let held = self.term.take().filter(|term| term.run_log().identity() == run_log.identity());
        if let Some(term) = held {
            return Ok(term);
        }
        let mirrored = self.replica.become_replica_of(&self.primary, run_log, &self.who).await;
        let mirrored = mirrored.map_err(|error| self.copy_error(error.into()))?;
        if self.unreplicated.is_empty() {
            self.unreplicated = unreplicated(mirrored.run_log(), run_log);
        }
        Ok(mirrored)
    }

    /// What to say of an error: that the run went on there is a word of its own.
    fn copy_error(&self, error: CopyError) -> ReplicateError {
        match error {
            CopyError::Replica(
                ReplicaLogError::WentOn { at, epoch, coordinator, .. }
                | ReplicaLogError::Diverged { at, epoch, coordinator, .. },
            ) => ReplicateError::WentOn { at, epoch, coordinator },
            source => ReplicateError::Copy { at: self.replica.uri().to_owned(), source },
        }
    }

    /// Who took the term over the replica: one who copies the same, or one with whom the run went on.
    async fn relieved(&self, run_log: &RunLog) -> ReplicateError {
        let other = match self.replica.run_log().await {
            Ok(other) => other,
            Err(error) => return self.copy_error(ReplicaLogError::Log(error).into()),
        };
        match refusal(&self.primary, run_log, &self.replica, &other) {
            Some(refusal) => self.copy_error(refusal.into()),
            None => ReplicateError::Relieved {
                at: self.replica.uri().to_owned(),
                replica: other.leader().to_owned(),
            },
        }
    }
}

/// What a replica knows of the time before the present term, that the run, whose log is `history`, says nothing of and
/// went on without under that term.
fn unreplicated(replica: &RunLog, run_log: &RunLog) -> Vec<Unreplicated> {
    let (mut heard_of, mut from) = (BTreeSet::new(), None);
    for entry in run_log.entries() {
        let Record::Checkpoint { step, manifest, origin, .. } = &entry.record else { continue };
        heard_of.insert(manifest);
        if origin.map_or(entry.epoch, |origin| origin.epoch) < run_log.epoch() {
            from = from.max(Some(*step));
        }
    }
    let checkpoints = replica.checkpoints();
    let unreplicated = checkpoints.iter().filter(|checkpoint| {
        // Another copy may have brought a newer one meanwhile.
        checkpoint.origin.epoch < run_log.epoch() && !heard_of.contains(&checkpoint.manifest)
    });
    let furthest = unreplicated.map(|checkpoint| checkpoint.step).filter(|&step| Some(step) > from).max();
    let word = replica.standing_entry().map(|entry| &entry.record);
    let word = word.filter(|word| run_log.entries().iter().all(|entry| entry.record != **word));
    let word = word.and_then(|word| match word {
        Record::Stopped(_) => Some(Unreplicated::Stopped),
        Record::Ended(ended) => Some(Unreplicated::Ended(ended.outcome)),
        _ => None,
    });
    furthest.map(|step| Unreplicated::Checkpoint { step }).into_iter().chain(word).collect()
}
