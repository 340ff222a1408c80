//! Keeping a replica in step behind a run.
//!
//! The coordinator that holds a run has a [`Replicator`] for each replica, and calls it after each commit. It copies
//! what the replica lacks of what is kept, the newest first, and collects there by the same retention. It never holds up
//! the run: a replica that cannot be reached lags, and the next call makes up for it.

use std::{collections::BTreeSet, fmt, mem::take};

use crate::{
    collect::{CollectError, collect},
    copy::{Amount, CopyError, CopyPlan, CopyProgress, LeftOut, Usable, check_names, log_of, plan},
    entry::{Outcome, Record},
    history::History,
    mirror::{MirrorError, refusal},
    office::{AppendError, Office},
    retention::Retention,
    run_dir::RunDir,
    save::Limits,
};

/// A replica of a run, as the coordinator that holds the run sees it.
#[derive(Debug)]
pub struct Replicator {
    primary: RunDir,
    replica: RunDir,
    who: String,
    retention: Retention,
    limits: Limits,
    office: Option<Office>,
    /// What the replica knew when its office was taken, and is yet to be told of.
    unheard: Vec<Unheard>,
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
    pub unheard: Vec<Unheard>,
}

/// What a replica knew of a run, when it was first reached, and the run's own log says nothing of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// The furthest checkpoint of those, if it is further than where the run went on from under its present office. It
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

impl fmt::Display for Unheard {
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
    #[error("{mirror} is copying the run to {at} as well; trying again later")]
    Relieved {
        /// The replica.
        at: String,
        /// Who copies to it now.
        mirror: String,
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
            office: None,
            unheard: Vec::new(),
        }
    }

    /// The replica.
    pub fn replica(&self) -> &RunDir {
        &self.replica
    }

    /// How far the replica is behind the run, whose log is `history`. Nothing is written.
    pub async fn lag(&self, history: &History) -> Result<Lag, ReplicateError> {
        let there = match &self.office {
            Some(office) => Some(office.history().clone()),
            None => log_of(&self.replica).await.map_err(|error| self.copy_error(error))?,
        };
        let newest = there.as_ref().and_then(|there| there.checkpoints().pop());
        let (plan, newest_of_run) = self.plan(history, there).await?;
        let newest = newest.map(|checkpoint| checkpoint.step);
        let (missing, left_out) = (plan.to_move, plan.left_out);
        Ok(Lag { newest, newest_of_run, missing, left_out, unheard: Vec::new() })
    }

    /// What the replica, whose log is `there`, lacks of what is kept; and the run's newest step. Those that are committed
    /// there and older than the newest few are taken to be whole: there may be hundreds of them.
    async fn plan(
        &self,
        history: &History,
        there: Option<History>,
    ) -> Result<(CopyPlan, Option<u64>), ReplicateError> {
        let mut wanted = self.retention.kept(history);
        let newest_of_run = wanted.last().map(|checkpoint| checkpoint.step);
        let newest = wanted.len().saturating_sub(self.retention.last.max(1) as usize);
        let newest = wanted.split_off(newest);
        let usable = Usable::by(there.as_ref());
        wanted.retain(|checkpoint| !usable.has(checkpoint));
        wanted.extend(newest);
        let plan = plan(&self.primary, history.clone(), &self.replica, there, wanted).await;
        Ok((plan.map_err(|error| self.copy_error(error))?, newest_of_run))
    }

    /// Brings the replica into step with the run, whose log is `history`, and says what it still lacks.
    pub async fn replicate(
        &mut self,
        history: &History,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Lag, ReplicateError> {
        check_names(&self.primary, &self.replica).map_err(|error| self.copy_error(error))?;
        let mut office = self.hold(history).await?;
        let outcome = self.copy(&mut office, history, progress).await;
        self.office = Some(office);
        match outcome {
            Err(ReplicateError::Copy { source: CopyError::Append(AppendError::Fenced { .. }), .. })
            | Err(ReplicateError::Collect {
                source: CollectError::Append(AppendError::Fenced { .. }), ..
            }) => {
                self.office = None;
                Err(self.relieved(history).await)
            }
            outcome => outcome.map(|lag| Lag { unheard: take(&mut self.unheard), ..lag }),
        }
    }

    async fn copy(
        &self,
        office: &mut Office,
        history: &History,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Lag, ReplicateError> {
        // What this office wrote it knows; only what others added at the end is read.
        office.check().await.map_err(|error| self.copy_error(error.into()))?;
        let (plan, newest_of_run) = self.plan(history, Some(office.history().clone())).await?;
        let copied = Box::pin(plan.carry_out_as(office, &self.limits, progress)).await;
        let copied = copied.map_err(|error| self.copy_error(error))?;
        // What a checkpoint that was left out has there already is spared for when it is healed.
        let retention = Retention { in_flight: copied.spared, ..self.retention.clone() };
        let failed = |source| ReplicateError::Collect { at: self.replica.uri().to_owned(), source };
        collect(office, &retention).await.map_err(failed)?;
        let newest = office.history().checkpoints().last().map(|checkpoint| checkpoint.step);
        let (missing, left_out) = (copied.bad, copied.left_out);
        Ok(Lag { newest, newest_of_run, missing, left_out, unheard: Vec::new() })
    }

    /// The office over the replica: the one held, if it mirrors the office that the run is under, or a new one.
    async fn hold(&mut self, history: &History) -> Result<Office, ReplicateError> {
        let held = self.office.take().filter(|office| office.history().identity() == history.identity());
        if let Some(office) = held {
            return Ok(office);
        }
        let mirrored = self.replica.mirror(&self.primary, history, &self.who).await;
        let mirrored = mirrored.map_err(|error| self.copy_error(error.into()))?;
        if self.unheard.is_empty() {
            self.unheard = unheard(mirrored.history(), history);
        }
        Ok(mirrored)
    }

    /// What to say of an error: that the run went on there is a word of its own.
    fn copy_error(&self, error: CopyError) -> ReplicateError {
        match error {
            CopyError::Mirror(
                MirrorError::WentOn { at, epoch, coordinator, .. }
                | MirrorError::Diverged { at, epoch, coordinator, .. },
            ) => ReplicateError::WentOn { at, epoch, coordinator },
            source => ReplicateError::Copy { at: self.replica.uri().to_owned(), source },
        }
    }

    /// Who took the office over the replica: one who copies the same, or one with whom the run went on.
    async fn relieved(&self, history: &History) -> ReplicateError {
        let other = match self.replica.history().await {
            Ok(other) => other,
            Err(error) => return self.copy_error(MirrorError::Log(error).into()),
        };
        match refusal(&self.primary, history, &self.replica, &other) {
            Some(refusal) => self.copy_error(refusal.into()),
            None => ReplicateError::Relieved {
                at: self.replica.uri().to_owned(),
                mirror: other.in_office().to_owned(),
            },
        }
    }
}

/// What a replica knows of the time before the present office, that the run, whose log is `history`, says nothing of and
/// went on without under that office.
fn unheard(replica: &History, history: &History) -> Vec<Unheard> {
    let (mut heard_of, mut from) = (BTreeSet::new(), None);
    for entry in history.entries() {
        let Record::Checkpoint { step, manifest, origin, .. } = &entry.record else { continue };
        heard_of.insert(manifest);
        if origin.map_or(entry.epoch, |origin| origin.epoch) < history.epoch() {
            from = from.max(Some(*step));
        }
    }
    let checkpoints = replica.checkpoints();
    let unheard = checkpoints.iter().filter(|checkpoint| {
        // Another copy may have brought a newer one meanwhile.
        checkpoint.origin.epoch < history.epoch() && !heard_of.contains(&checkpoint.manifest)
    });
    let furthest = unheard.map(|checkpoint| checkpoint.step).filter(|&step| Some(step) > from).max();
    let word = replica.standing_entry().map(|entry| &entry.record);
    let word = word.filter(|word| history.entries().iter().all(|entry| entry.record != **word));
    let word = word.and_then(|word| match word {
        Record::Stopped(_) => Some(Unheard::Stopped),
        Record::Ended(ended) => Some(Unheard::Ended(ended.outcome)),
        _ => None,
    });
    furthest.map(|step| Unheard::Checkpoint { step }).into_iter().chain(word).collect()
}
