//! Copies of a run in other stores, and which of them the run went on in.
//!
//! A run has one *lineage*: the coordinators that held it, one after another. Its directory may be copied to other
//! stores, and any copy can be where it goes on. Nothing is shared between the stores but what was copied, so the
//! question which directory is the newest is answered by the logs alone.
//!
//! # Identities
//! The entry by which a coordinator starts a term bears a random name, its [`writer`](crate::Entry::writer): the
//! *identity* of the term. Whoever copies the run takes over the copy as a *replica*: in the epoch and with the
//! identity of the term that the source is under, which says "this directory is what that coordinator made of it",
//! and with the identities before it that the copy has not heard of. A log is thereby a list of identities, the whole
//! lineage up to then, and two logs of one run compare by them ([`relation`]): if the last of one is
//! among the other's, the other is as new or newer; if neither is, somebody resumed the run in both.
//!
//! # What this excludes
//! - A replica's term is taken only over what is [`Behind`](Relation::Behind) or the [`Same`](Relation::Same), with the
//!   log in hand that says so: the entry is created at the log's end, and if that moved, the question is asked again. So
//!   a copy that somebody resumed is never written to by those who would copy an older state over it. They learn that the
//!   run [went on](ReplicaLogError::WentOn), and where.
//! - Once the run went on in a copy, copying it back to where it was before fences the coordinator that held it there:
//!   the replica's epoch is higher. That coordinator, should it come back, finds so at its next append.
//! - Replicas of one term take turns: each fences the one before, and all write the same.
//! - Where a copy has a checkpoint that its source lost, whoever takes over the source brings it back under the new
//!   term ([`recover_from`](crate::recover_from)): the copy's is one before it then, and the copy is behind.
//!
//! What cannot be excluded is that a coordinator which reaches no other store goes on while the run is resumed
//! elsewhere. Then both directories are whole and have a lineage each, none is ever copied over the other, and each
//! coordinator stops once it reaches the other's directory.

use crate::log::{
    entry::{Entry, Record, ReplicaOf},
    run_dir::RunDir,
    run_log::{LogError, RunLog},
    term::{Placed, Term, draft, place},
};

/// How a directory of a run stands to another, the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The source went on after it: what the source has more can be copied to it.
    Behind,
    /// Both are under the same term. It may lack checkpoints of the source, and the source some of its.
    Same,
    /// The run went on in it after the source.
    Ahead,
    /// The run went on in both, or they are not the same run.
    Diverged,
}

/// How `other` stands to `source`, by the terms in their logs.
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
                // Each under the other's term at some time, and neither last: no lineage has that.
                (true, true) | (false, false) => Relation::Diverged,
            }
        }
    }
}

/// A directory that cannot be made, or kept, a copy of another.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaLogError {
    /// Somebody resumed the run there.
    #[error(
        "the run went on at {at} ({coordinator}, epoch {epoch}) after {source_uri}: nothing is copied over it; resume it there, or copy from there"
    )]
    WentOn {
        /// Where it went on.
        at: String,
        /// The epoch there.
        epoch: u64,
        /// Who holds it there.
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
        /// Who holds it there.
        coordinator: String,
        /// What was to be copied.
        source_uri: String,
    },
    /// There is something else under the run's name.
    #[error("there is another run at {at}, of the same name as {source_uri}; copy to another store")]
    AnotherRun {
        /// The directory that was to be the copy.
        at: String,
        /// What was to be copied.
        source_uri: String,
    },
    /// It is where the term was taken that the source merely replicas, or the source itself.
    #[error(
        "{at} is the run itself, which {source_uri} shows: nothing is copied to it; what it lost comes back from the replicas that its spec names, when it is resumed"
    )]
    Itself {
        /// The directory that was to be the copy.
        at: String,
        /// What was to be copied.
        source_uri: String,
    },
    /// Nobody has held the run yet.
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
    /// Whether the run is held elsewhere, by somebody who does not descend from the source's term or from whom the
    /// source's term does not descend: whoever holds the source's must stop.
    pub fn went_on(&self) -> bool {
        matches!(self, Self::WentOn { .. } | Self::Diverged { .. })
    }
}

/// Why a directory with the log `other` is not to be written to as a copy of `source`; `None` if it may be.
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
    /// Makes this directory a copy of `source`, whose log is `source_history`: creates the run in it if there is none,
    /// and takes its term as a replica. Whoever held it is fenced. `who` says who copies, in words for people.
    ///
    /// Nothing but the log is copied: for that there is [`plan_copy`](crate::plan_copy).
    pub async fn become_replica_of(
        &self,
        source: &RunDir,
        source_log: &RunLog,
        who: &str,
    ) -> Result<Term, ReplicaLogError> {
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
            let before = source_log.identities().into_iter();
            let before = before.filter(|before| *before != identity && !known.contains(before));
            let replica = ReplicaOf {
                source: source.uri().to_owned(),
                term: identity.to_owned(),
                before: before.map(str::to_owned).collect(),
            };
            let record = Record::Term { coordinator: who.to_owned(), replica_of: Some(replica) };
            let entry = draft(run_log.next_number(), source_log.epoch(), record)?;
            match place(self.folder(), &entry).await? {
                Placed::Mine => {
                    run_log.push(self.folder(), entry.clone())?;
                    tracing::info!(
                        run = self.uri(),
                        source = source.uri(),
                        epoch = entry.epoch,
                        "replica_of"
                    );
                    return Ok(Term::taken(self.clone(), entry, run_log));
                }
                Placed::Taken(entry) => run_log.push(self.folder(), entry)?,
            }
        }
    }

    /// Writes the first entry of another directory's log as the first of this one's: it is the same run.
    async fn begin_as(&self, source: &RunLog) -> Result<RunLog, LogError> {
        place(self.folder(), source.submission_entry()).await?;
        // If somebody else was first, the log tells what run it is.
        self.run_log().await
    }
}

/// The identity that an entry gives the term it takes; `None` if it takes none.
pub(crate) fn identity(entry: &Entry) -> Option<&str> {
    match &entry.record {
        Record::Term { replica_of: Some(replica), .. } => Some(&replica.term),
        Record::Term { replica_of: None, .. } => Some(&entry.writer),
        _ => None,
    }
}

/// The identities that an entry adds to the lineage, in order.
pub(crate) fn identities(entry: &Entry) -> Vec<&str> {
    let before = match &entry.record {
        Record::Term { replica_of: Some(replica), .. } => replica.before.as_slice(),
        _ => &[],
    };
    before.iter().map(String::as_str).chain(identity(entry)).collect()
}
