//! Replicas of a run in other stores, and which of its directories is the newest.
//!
//! A run has one *lineage*: the terms over it, one after another. Its directory may be copied to other stores, and the run
//! may be resumed in any copy. The stores share nothing but what was copied, so the logs alone must tell which directory
//! is the newest.
//!
//! # Identities
//! The entry that starts a term has a random name, its [`writer`](crate::Entry::writer): the *identity* of the term. A
//! replica task that copies the run starts a term in the copy too, with the epoch and the identity of the source's term.
//! This says: "this directory is as of that term". It also records the identities of earlier terms that the copy has no
//! entry of. So each log lists the identities of the whole lineage up to its own term, and two logs of one run compare by
//! these lists ([`relation`]):
//!
//! | the last identity of one log | relation |
//! | --- | --- |
//! | is the last of the other | both are under the same term |
//! | is among the other's, but not the last | the other is ahead |
//! | neither log has the other's | the run was resumed in both: they diverged |
//!
//! # What this excludes
//! - A replica's term is started only in a directory that is [`Behind`](Relation::Behind) or the
//!   [`Same`](Relation::Same), by the log just read: the entry is created at that log's end, and if the log has grown, the
//!   relation is computed again. So an older state is never copied over a copy in which the run was resumed. The replica
//!   task learns that the run [went on](ReplicaLogError::WentOn), and where.
//! - If the run went on in a copy, copying it back to the original directory fences the coordinator that led it there,
//!   since the replica's epoch is higher. That coordinator finds out at its next append.
//! - Replica tasks of one term succeed each other: each fences the one before, and all write the same.
//! - If a copy has a checkpoint that its source lost, the coordinator that takes over the source recovers it under its new
//!   term ([`recover_from`](crate::recover_from)). The copy's term is then an earlier one, and the copy is behind.
//!
//! One case cannot be excluded: a coordinator that reaches no other store goes on while the run is resumed elsewhere. Then
//! both directories are intact and have a lineage each, neither is ever copied over the other, and each coordinator stops
//! once it reaches the other's directory.

use super::{
    create_entry::{EntryCreation, create_entry, draft},
    entry::{Record, ReplicaOf},
    run_dir::RunDir,
    run_log::{LogError, RunLog},
    term::Term,
};
use futures::future::BoxFuture;

/// The relation of a run's directory to another one, the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The run went on in the source after it: the source can be copied to it.
    Behind,
    /// Both are under the same term. Each may lack checkpoints of the other.
    Same,
    /// The run went on in it after the source.
    Ahead,
    /// The run went on in both, or they are different runs.
    Diverged,
}

/// The relation of `other` to `source`, by the terms in their logs.
pub fn relation(source: &RunLog, other: &RunLog) -> Relation {
    if source.submission() != other.submission() {
        return Relation::Diverged;
    }
    match (source.identity(), other.identity()) {
        (None, None) => Relation::Same,
        (Some(_), None) => Relation::Behind,
        (None, Some(_)) => Relation::Ahead,
        (Some(ours), Some(theirs)) if ours == theirs => Relation::Same,
        (Some(ours), Some(theirs)) => {
            match (source.identities().contains(&theirs), other.identities().contains(&ours)) {
                (true, false) => Relation::Behind,
                (false, true) => Relation::Ahead,
                // If both are true, each log has the other's term, and neither as its last: no lineage has that.
                (true, true) | (false, false) => Relation::Diverged,
            }
        }
    }
}

/// A directory that cannot be made, or kept, a replica of another.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaLogError {
    /// The run was resumed there.
    #[error(
        "the run went on at {at} ({coordinator}, epoch {epoch}) after {source_uri}: nothing is copied over it; resume it there, or copy from there"
    )]
    WentOn {
        /// Where it went on.
        at: String,
        /// The epoch there.
        epoch: u64,
        /// The coordinator that leads it there.
        coordinator: String,
        /// What was to be copied.
        source_uri: String,
    },
    /// The run went on in both.
    #[error(
        "the run went on at {at} ({coordinator}, epoch {epoch}) and at {source_uri}, each without the other: nothing is copied between them; keep the one you want, and delete or rename the other's directory"
    )]
    Diverged {
        /// The directory that was to be the copy.
        at: String,
        /// The epoch there.
        epoch: u64,
        /// The coordinator that leads it there.
        coordinator: String,
        /// What was to be copied.
        source_uri: String,
    },
    /// The directory holds another run of the same name.
    #[error("there is another run at {at}, of the same name as {source_uri}; copy to another store")]
    AnotherRun {
        /// The directory that was to be the copy.
        at: String,
        /// What was to be copied.
        source_uri: String,
    },
    /// The directory is the source itself, or the one that the source is a replica of.
    #[error(
        "{at} is the run itself, according to the log of {source_uri}: nothing is copied to it; when the run is resumed, it recovers what it lost from the replicas that its spec names"
    )]
    Itself {
        /// The directory that was to be the copy.
        at: String,
        /// What was to be copied.
        source_uri: String,
    },
    /// The run has had no term yet.
    #[error(
        "the run at {source_uri} has not begun: no coordinator has started a term, and there is nothing to copy"
    )]
    NotBegun {
        /// What was to be copied.
        source_uri: String,
    },
    /// The log of the directory that was to be the copy cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl ReplicaLogError {
    /// Whether the run went on elsewhere, so that the coordinator that leads the source must stop.
    pub fn went_on(&self) -> bool {
        matches!(self, Self::WentOn { .. } | Self::Diverged { .. })
    }
}

/// Why the directory `at` with the log `other` must not become a replica of `source`; `None` if it may.
pub(crate) fn refusal(
    source: &RunDir,
    source_log: &RunLog,
    at: &RunDir,
    other: &RunLog,
) -> Option<ReplicaLogError> {
    let (at, source_uri) = (at.uri().to_owned(), source.uri().to_owned());
    if !source_log.is_of_the_run_of(other) {
        return Some(ReplicaLogError::AnotherRun { at, source_uri });
    }
    let epoch = other.epoch();
    let coordinator = other.leader().to_owned();
    match relation(source_log, other) {
        Relation::Ahead => Some(ReplicaLogError::WentOn { at, epoch, coordinator, source_uri }),
        Relation::Diverged => Some(ReplicaLogError::Diverged { at, epoch, coordinator, source_uri }),
        Relation::Same if other.identity().is_some() && other.replica_of().is_none() => {
            Some(ReplicaLogError::Itself { at, source_uri })
        }
        Relation::Behind | Relation::Same => None,
    }
}

impl RunDir {
    /// Makes this directory a replica of `source`, whose log is `source_log`: creates the run in it if there is none, and
    /// starts a replica's term. A term that was in force here is fenced. `who` describes the caller, for people.
    ///
    /// Only the log is written; [`plan_copy`](crate::plan_copy) copies checkpoints.
    pub fn become_replica_of<'a>(
        &'a self,
        source: &'a RunDir,
        source_log: &'a RunLog,
        who: &'a str,
    ) -> BoxFuture<'a, Result<Term, ReplicaLogError>> {
        Box::pin(async move {
            let Some(identity) = source_log.identity() else {
                return Err(ReplicaLogError::NotBegun { source_uri: source.uri().to_owned() });
            };
            let mut run_log = match self.run_log().await {
                Ok(run_log) => run_log,
                Err(LogError::NoRun { .. }) => self.begin_as(source_log).await?,
                Err(error) => return Err(error.into()),
            };
            loop {
                if let Some(refusal) = refusal(source, source_log, self, &run_log) {
                    return Err(refusal);
                }
                let known = run_log.identities();
                let prior = source_log.identities().into_iter();
                let prior = prior.filter(|prior| *prior != identity && !known.contains(prior));
                let replica = ReplicaOf {
                    source: source.uri().to_owned(),
                    term: identity.to_owned(),
                    prior_terms: prior.map(str::to_owned).collect(),
                };
                let record = Record::Term { coordinator: who.to_owned(), replica_of: Some(replica) };
                let entry = draft(run_log.next_number(), source_log.epoch(), record)?;
                match create_entry(self.folder(), &entry).await? {
                    EntryCreation::Created => {
                        run_log.push(self.folder(), entry.clone())?;
                        let (source, epoch) = (source.uri(), entry.epoch);
                        tracing::info!(run = self.uri(), source, epoch, "started a replica's term");
                        return Ok(Term::started(self.clone(), entry, run_log));
                    }
                    EntryCreation::Taken(entry) => run_log.push(self.folder(), entry)?,
                }
            }
        })
    }

    /// Creates the run here with the first entry of another directory's log: it is the same run.
    async fn begin_as(&self, source: &RunLog) -> Result<RunLog, LogError> {
        create_entry(self.folder(), source.submission_entry()).await?;
        // If another writer was first, the log tells which run it is.
        self.run_log().await
    }
}
