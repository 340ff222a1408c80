//! The whole log of a run, and what follows from it: the checkpoints, the epoch in force, whether the run goes on.

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    checkpoints::{CheckpointInfo, Checkpoints},
    entry::{self, Ended, Entry, EntryError, HostedBy, Record, ReplicaOf, Stopped, identities, identity},
};
use crate::object::{Folder, StoreError};

/// Entries read concurrently.
const CONCURRENCY: usize = 16;

/// The entries of a run log in order. Numbers run from 0 without a gap. Epochs never fall, and rise only in an entry that
/// starts a term. Replicas of one term may succeed each other in its epoch.
#[derive(Clone, Debug)]
pub struct RunLog {
    first: Submission,
    entries: Vec<Entry>,
    /// The number of the entry that started the term in force.
    term: Option<usize>,
    checkpoints: Checkpoints,
}

/// The first entry and its content.
#[derive(Clone, Debug)]
struct Submission {
    entry: Entry,
    spec: String,
    hosted_by: HostedBy,
}

/// A run log that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no log.
    #[error("there is no run at {run}")]
    NoRun {
        /// The run's URI.
        run: String,
    },
    /// An entry is damaged, or of a later version.
    #[error("the log entry {object} cannot be used{}", source.advice())]
    Entry {
        /// The entry's URI.
        object: String,
        /// What is wrong with it.
        source: EntryError,
    },
    /// An entry is missing, and later ones exist.
    #[error(
        "the log entry {object} is missing though later ones exist; restore it from a copy of the run's directory"
    )]
    Hole {
        /// The entry's URI.
        object: String,
    },
    /// An entry contradicts those before it.
    #[error("the log entry {object} contradicts those before it: {why}")]
    Order {
        /// The entry's URI.
        object: String,
        /// How.
        why: &'static str,
    },
    /// The store answers that an entry exists when it is created, and that it does not when it is read.
    #[error(
        "the log entry {object} can neither be created nor read: the store contradicts itself, try again later"
    )]
    Contradiction {
        /// The entry's URI.
        object: String,
    },
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunLog {
    /// Reads a log from its start to its end.
    ///
    /// The entries that a listing has are read concurrently. Later ones are read one after another until one does not
    /// exist, since listings may lag.
    pub(crate) async fn read(folder: &Folder) -> Result<Self, LogError> {
        let listing = folder.list("log").await?;
        let listed = listing.iter().filter_map(|object| entry::number(&object.name)).max();
        let listed = listed.map_or(0, |last| last.saturating_add(1));
        let Some(first) = read_entry(folder, 0).await? else {
            return Err(match listed {
                0 => LogError::NoRun { run: folder.uri().to_owned() },
                _ => LogError::Hole { object: folder.uri_of(&entry::name(0)) },
            });
        };
        let mut run_log = Self::begin(folder, first)?;
        let mut known = stream::iter(1..listed)
            .map(|number| async move { Ok::<_, LogError>((number, read_entry(folder, number).await?)) })
            .buffered(CONCURRENCY);
        while let Some((number, found)) = known.try_next().await? {
            let hole = || LogError::Hole { object: folder.uri_of(&entry::name(number)) };
            run_log.push(folder, found.ok_or_else(hole)?)?;
        }
        drop(known);
        run_log.read_on(folder).await?;
        Ok(run_log)
    }

    fn begin(folder: &Folder, first: Entry) -> Result<Self, LogError> {
        let wrong = |why| LogError::Order { object: folder.uri_of(&entry::name(0)), why };
        Self::first(first).map_err(wrong)
    }

    fn first(first: Entry) -> Result<Self, &'static str> {
        match &first.record {
            Record::Submitted { spec, hosted_by } if first.epoch == 0 && first.number == 0 => {
                let submission =
                    Submission { entry: first.clone(), spec: spec.clone(), hosted_by: *hosted_by };
                Ok(Self {
                    first: submission,
                    entries: vec![first],
                    term: None,
                    checkpoints: Checkpoints::default(),
                })
            }
            _ => Err("a log starts with the submission of its run, before the first term"),
        }
    }

    /// The log of these entries, or why they are none.
    #[cfg(test)]
    pub(crate) fn of(entries: Vec<Entry>) -> Result<Self, &'static str> {
        let mut entries = entries.into_iter();
        let mut run_log = Self::first(entries.next().ok_or("there is none")?)?;
        entries.try_for_each(|entry| run_log.add(entry))?;
        Ok(run_log)
    }

    /// Reads the entries appended since.
    pub(crate) async fn read_on(&mut self, folder: &Folder) -> Result<(), LogError> {
        while let Some(entry) = read_entry(folder, self.next_number()).await? {
            self.push(folder, entry)?;
        }
        Ok(())
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, folder: &Folder, entry: Entry) -> Result<(), LogError> {
        let number = self.next_number();
        self.add(entry).map_err(|why| LogError::Order { object: folder.uri_of(&entry::name(number)), why })
    }

    /// Adds the entries that `newer` has and this one lacks. Both must be the same log, `newer` read later.
    pub fn extend_from(&mut self, newer: &Self) {
        for entry in newer.entries.get(self.entries.len()..).unwrap_or_default() {
            self.accept(entry.clone());
        }
    }

    /// Adds the next entry, or says how it contradicts those before it.
    fn add(&mut self, entry: Entry) -> Result<(), &'static str> {
        let starts_term = matches!(entry.record, Record::Term { .. });
        if entry.number != self.next_number() {
            return Err("its number is not the one in its name");
        }
        if entry.epoch == u64::MAX {
            return Err("its epoch is the highest there is, and no term could follow it");
        }
        if starts_term && entry.epoch <= self.epoch() && !self.is_succeeded_by(&entry) {
            return Err("a coordinator started a term without a higher epoch");
        }
        if !starts_term && entry.epoch != self.epoch() {
            return Err("it was written by a coordinator that was not leading the run");
        }
        self.accept(entry);
        Ok(())
    }

    fn accept(&mut self, entry: Entry) {
        if matches!(entry.record, Record::Term { .. }) {
            self.term = Some(self.entries.len());
        }
        self.checkpoints.apply(&entry);
        self.entries.push(entry);
    }

    /// Whether `next` starts a term of another replica task over the same term of the source as the last one.
    fn is_succeeded_by(&self, next: &Entry) -> bool {
        let Record::Term { replica_of: Some(replica), .. } = &next.record else { return false };
        next.epoch == self.epoch() && self.replica_of().is_some_and(|last| last.term == replica.term)
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number that the next entry will have.
    pub fn next_number(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The run spec, in TOML.
    pub fn spec(&self) -> &str {
        &self.first.spec
    }

    /// When the run was submitted, by the submitter's clock.
    pub fn submitted(&self) -> DateTime<Utc> {
        self.first.entry.time
    }

    /// Which kind of coordinator hosts the run.
    pub fn hosted_by(&self) -> HostedBy {
        self.first.hosted_by
    }

    /// The epoch in force; 0 before the first term.
    pub fn epoch(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.epoch)
    }

    /// The entries by which coordinators started a term, in order.
    pub(crate) fn terms(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.record, Record::Term { .. }))
    }

    /// The entry that started the term in force.
    fn term(&self) -> Option<&Entry> {
        self.entries.get(self.term?)
    }

    /// The token of the term in force: the name of the write that started it.
    pub(crate) fn token(&self) -> Option<&str> {
        self.term().map(|entry| entry.writer.as_str())
    }

    /// The identity of the term in force, or of the source's term if the directory is a replica.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.term().and_then(identity)
    }

    /// The identities of all terms that this log knows of, in order.
    pub(crate) fn identities(&self) -> Vec<&str> {
        self.terms().flat_map(identities).collect()
    }

    /// The random name of the run's submission. All copies of the run share it, and no other run has it.
    pub(crate) fn submission(&self) -> &str {
        &self.first.entry.writer
    }

    /// Whether both logs are of the same run.
    pub fn is_of_the_run_of(&self, other: &Self) -> bool {
        self.submission() == other.submission()
    }

    /// The entry that submitted the run.
    pub(crate) fn submission_entry(&self) -> &Entry {
        &self.first.entry
    }

    /// A description of the coordinator that leads the run, for people.
    pub fn leader(&self) -> &str {
        self.coordinator().unwrap_or("another coordinator")
    }

    /// The description of the coordinator that leads the run; `None` before the first term.
    pub fn coordinator(&self) -> Option<&str> {
        match &self.term()?.record {
            Record::Term { coordinator, .. } => Some(coordinator),
            _ => None,
        }
    }

    /// The source, if the directory is a *replica*: the run goes on there, and not here until it is resumed here.
    pub fn replica_of(&self) -> Option<&ReplicaOf> {
        match &self.term()?.record {
            Record::Term { replica_of, .. } => replica_of.as_ref(),
            _ => None,
        }
    }

    /// How the run ended; `None` while it has not, and after it was resumed.
    pub fn ended(&self) -> Option<&Ended> {
        match self.last_status()? {
            Record::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Where the run was stopped; `None` if it was not, was resumed since, or has ended.
    pub fn stopped(&self) -> Option<&Stopped> {
        match self.last_status()? {
            Record::Stopped(stopped) => Some(stopped),
            _ => None,
        }
    }

    /// The last record that the run was stopped, resumed or ended.
    fn last_status(&self) -> Option<&Record> {
        self.last_status_entry().map(|entry| &entry.record)
    }

    /// The last entry that the run was stopped, resumed or ended.
    pub(crate) fn last_status_entry(&self) -> Option<&Entry> {
        let is_status = |entry: &&Entry| {
            matches!(entry.record, Record::Stopped(_) | Record::Resumed { .. } | Record::Ended(_))
        };
        self.entries.iter().rev().find(is_status)
    }

    /// The usable checkpoints: committed, not quarantined and not collected; newest last.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.usable_checkpoints().cloned().collect()
    }

    /// The same as [`checkpoints`](Self::checkpoints), one by one.
    pub(crate) fn usable_checkpoints(&self) -> impl DoubleEndedIterator<Item = &CheckpointInfo> {
        self.checkpoints.iter().filter(|checkpoint| checkpoint.quarantined.is_none())
    }

    /// The checkpoint with this manifest, if it is committed, quarantined or not, and not collected.
    pub fn checkpoint(&self, manifest: &str) -> Option<&CheckpointInfo> {
        self.checkpoints.get(manifest)
    }

    /// The same, unless it is quarantined.
    pub fn usable_checkpoint(&self, manifest: &str) -> Option<&CheckpointInfo> {
        self.checkpoint(manifest).filter(|checkpoint| checkpoint.quarantined.is_none())
    }

    /// The committed checkpoints, quarantined ones included and collected ones not; newest last.
    ///
    /// A checkpoint that is committed again is usable again, and is as new as its newest commit. The order is that of the
    /// original commits, not that in which copies were made.
    pub fn all_checkpoints(&self) -> Vec<CheckpointInfo> {
        self.checkpoints.iter().cloned().collect()
    }

    /// The same as [`all_checkpoints`](Self::all_checkpoints), one by one, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &CheckpointInfo> {
        self.checkpoints.iter().rev()
    }

    /// The newest usable checkpoint.
    pub fn newest_checkpoint(&self) -> Option<&CheckpointInfo> {
        self.usable_checkpoints().next_back()
    }
}

/// Reads entry `number`; `None` if it does not exist.
pub(crate) async fn read_entry(folder: &Folder, number: u64) -> Result<Option<Entry>, LogError> {
    let name = entry::name(number);
    let mut attempts = 2;
    loop {
        let bytes = match folder.get(&name, entry::MOST_BYTES).await {
            Err(StoreError::TooLong { object, .. }) => {
                return Err(LogError::Entry { object, source: EntryError::Frame });
            }
            answered => answered?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let error = match Entry::decode(&bytes) {
            Ok(entry) => return Ok(Some(entry)),
            Err(error) => error,
        };
        // Read once more before it counts as damaged: the transfer may have damaged it.
        attempts -= 1;
        if attempts == 0 {
            return Err(LogError::Entry { object: folder.uri_of(&name), source: error });
        }
    }
}
