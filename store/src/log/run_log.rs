//! The whole of a run log, and what it says.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use whimbrel_state::Hash;

use crate::{
    log::{
        entry::{self, Ended, Entry, EntryError, Mode, Origin, Record, ReplicaOf, Stopped},
        lineage,
    },
    object::folder::{Folder, StoreError},
};

/// Entries read at a time.
const AHEAD: usize = 16;

/// The entries of a run log in order: numbers from 0 without a gap, epochs that only rise, and rise only where a
/// coordinator starts a term. Replicas of one term may follow each other in its epoch.
#[derive(Clone, Debug)]
pub struct RunLog {
    first: Submission,
    entries: Vec<Entry>,
}

/// What the first entry says.
#[derive(Clone, Debug)]
struct Submission {
    entry: Entry,
    spec: String,
    submitter: Mode,
}

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointInfo {
    /// Steps applied to its state.
    pub step: u64,
    /// The manifest's name in the run's directory, for [`RunDir::manifest`](crate::RunDir::manifest).
    pub manifest: String,
    /// When it was committed, by the clock of the coordinator that made it.
    pub time: Timestamp,
    /// Where it was committed first: here, or in the directory that this one is a copy of.
    pub origin: Origin,
    /// Bytes of its packs.
    pub bytes: u64,
    /// The digest of its state, if it was computed.
    pub state: Option<Hash>,
    /// Why it is not to be used, if it is damaged.
    pub quarantined: Option<String>,
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
    /// An entry is not what was written.
    #[error("the log entry {object} cannot be used{}", source.advice())]
    Entry {
        /// The entry's URI.
        object: String,
        /// What is wrong with it.
        source: EntryError,
    },
    /// An entry is gone, and later ones are there.
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
    /// The store says that an entry exists when it is created, and that it does not when it is read.
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
    /// A listing says how far the log goes at least; entries up to there are read several at a time, and then one
    /// after another until there is none, since listings may lag.
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
            .buffered(AHEAD);
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
            Record::Submitted { spec, submitter } if first.epoch == 0 && first.number == 0 => {
                let submission =
                    Submission { entry: first.clone(), spec: spec.clone(), submitter: *submitter };
                Ok(Self { first: submission, entries: vec![first] })
            }
            _ => Err("a log starts with the submission of its run, before anyone is leading the run"),
        }
    }

    /// The history that these entries tell; why they tell none, if they do not.
    #[cfg(test)]
    pub(crate) fn of(entries: Vec<Entry>) -> Result<Self, &'static str> {
        let mut entries = entries.into_iter();
        let mut run_log = Self::first(entries.next().ok_or("there is none")?)?;
        entries.try_for_each(|entry| run_log.add(entry))?;
        Ok(run_log)
    }

    /// Reads what was appended since.
    pub(crate) async fn read_on(&mut self, folder: &Folder) -> Result<(), LogError> {
        while let Some(entry) = read_entry(folder, self.next_number()).await? {
            self.push(folder, entry)?;
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, folder: &Folder, entry: Entry) -> Result<(), LogError> {
        let number = self.next_number();
        self.add(entry).map_err(|why| LogError::Order { object: folder.uri_of(&entry::name(number)), why })
    }

    /// Adds the next entry; says how it contradicts those before it, if it does.
    fn add(&mut self, entry: Entry) -> Result<(), &'static str> {
        let takes_office = matches!(entry.record, Record::Term { .. });
        if entry.number != self.next_number() {
            return Err("its number is not its name's");
        }
        if entry.epoch == u64::MAX {
            return Err("its epoch is the highest there is, and nobody could ever start a term after it");
        }
        if takes_office && entry.epoch <= self.epoch() && !self.is_relieved_by(&entry) {
            return Err("a coordinator started a term without a higher epoch");
        }
        if !takes_office && entry.epoch != self.epoch() {
            return Err("it was written by a coordinator that was not leading the run");
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Whether `next` is another replica of the term that the last one replica_of: it goes on where that one was.
    fn is_relieved_by(&self, next: &Entry) -> bool {
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

    /// When the run was submitted, by the clock of who did.
    pub fn submitted(&self) -> Timestamp {
        self.first.entry.time
    }

    /// Who looks after the run.
    pub fn submitter(&self) -> Mode {
        self.first.submitter
    }

    /// The epoch in force; 0 when nobody has started a term yet.
    pub fn epoch(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.epoch)
    }

    /// The entries by which coordinators started a term, in order.
    pub(crate) fn terms(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.record, Record::Term { .. }))
    }

    /// The name of the write by which the present holder started a term.
    pub(crate) fn seat(&self) -> Option<&str> {
        self.terms().next_back().map(|entry| entry.writer.as_str())
    }

    /// The identity of the term that the directory is under: of the coordinator's here, or of the one that it replicas.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.terms().next_back().and_then(lineage::identity)
    }

    /// The identities of all terms over the run, as far as this log tells, in the order in which they were taken.
    pub(crate) fn identities(&self) -> Vec<&str> {
        self.terms().flat_map(lineage::identities).collect()
    }

    /// The random name of the run's submission: the same in every copy of the run, and in no other run.
    pub(crate) fn submission(&self) -> &str {
        &self.first.entry.writer
    }

    /// Whether both logs are of one run.
    pub fn is_of_the_run_of(&self, other: &Self) -> bool {
        self.submission() == other.submission()
    }

    /// The entry that submitted the run.
    pub(crate) fn submission_entry(&self) -> &Entry {
        &self.first.entry
    }

    /// The coordinator leading the run, in words for people.
    pub fn leader(&self) -> &str {
        self.coordinator().unwrap_or("another coordinator")
    }

    /// The coordinator leading the run, if one ever took it.
    pub fn coordinator(&self) -> Option<&str> {
        match &self.terms().next_back()?.record {
            Record::Term { coordinator, .. } => Some(coordinator),
            _ => None,
        }
    }

    /// What the holder of the term copies, if it is a replica: then the directory is a *replica* of another one, and
    /// the run goes on there and not here, until somebody resumes it here.
    pub fn replica_of(&self) -> Option<&ReplicaOf> {
        match &self.terms().next_back()?.record {
            Record::Term { replica_of, .. } => replica_of.as_ref(),
            _ => None,
        }
    }

    /// How the run ended; `None` while it has not, and after it was resumed.
    pub fn ended(&self) -> Option<&Ended> {
        match self.standing()? {
            Record::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Where the run was stopped; `None` if it was not, was resumed since, or has ended.
    pub fn stopped(&self) -> Option<&Stopped> {
        match self.standing()? {
            Record::Stopped(stopped) => Some(stopped),
            _ => None,
        }
    }

    /// The last word on whether the run goes on.
    fn standing(&self) -> Option<&Record> {
        self.standing_entry().map(|entry| &entry.record)
    }

    /// The entry with the last word on whether the run goes on.
    pub(crate) fn standing_entry(&self) -> Option<&Entry> {
        let decides = |entry: &&Entry| {
            matches!(entry.record, Record::Stopped(_) | Record::Resumed { .. } | Record::Ended(_))
        };
        self.entries.iter().rev().find(decides)
    }

    /// The checkpoints that can be used: committed, not quarantined and not collected; newest last.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.all_checkpoints().into_iter().filter(|checkpoint| checkpoint.quarantined.is_none()).collect()
    }

    /// The committed checkpoints, quarantined ones included and collected ones not; newest last.
    ///
    /// A checkpoint that is committed once more is good again, whatever was found before, and as new as its newest commit:
    /// a run that goes on from an earlier state, here or in a copy, may compute the same state again.
    /// Copies are in the order in which the checkpoints were made, whatever that in which they were copied.
    pub fn all_checkpoints(&self) -> Vec<CheckpointInfo> {
        let mut checkpoints: Vec<CheckpointInfo> = Vec::new();
        for entry in &self.entries {
            match &entry.record {
                Record::Checkpoint { step, manifest, bytes, state, origin } => {
                    let here = Origin { epoch: entry.epoch, entry: entry.number, time: entry.time };
                    let before = checkpoints.iter().position(|known| known.manifest == *manifest);
                    let before = before.map(|place| checkpoints.remove(place).origin);
                    // A copy may bring a commit that is older than the one known.
                    let origin = origin.unwrap_or(here);
                    let origin = before.map_or(origin, |before| before.max(origin));
                    checkpoints.push(CheckpointInfo {
                        step: *step,
                        manifest: manifest.clone(),
                        time: origin.time,
                        origin,
                        bytes: *bytes,
                        state: *state,
                        quarantined: None,
                    });
                }
                Record::Quarantined { manifest, reason } => {
                    for known in checkpoints.iter_mut().filter(|known| known.manifest == *manifest) {
                        known.quarantined = Some(reason.clone());
                    }
                }
                Record::Collected { manifests } => {
                    checkpoints.retain(|known| !manifests.contains(&known.manifest));
                }
                _ => {}
            }
        }
        checkpoints.sort_by_key(|known| (known.origin.epoch, known.origin.entry));
        checkpoints
    }
}

/// Reads entry `number`; `None` if there is none.
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
        // Read again before it is believed, as packs are: what the network did to it passes.
        attempts -= 1;
        if attempts == 0 {
            return Err(LogError::Entry { object: folder.uri_of(&name), source: error });
        }
    }
}
