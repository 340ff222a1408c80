//! The whole of a run log, and what it says.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use whimbrel_state::Hash;

use crate::{
    entry::{self, Ended, Entry, EntryError, Mode, Record, Stopped},
    folder::{Folder, StoreError},
};

/// Entries read at a time.
const AHEAD: usize = 16;

/// The entries of a run log in order: numbers from 0 without a gap, epochs that only rise, and rise only where a
/// coordinator takes office.
#[derive(Clone, Debug)]
pub struct History {
    first: Submission,
    entries: Vec<Entry>,
}

/// What the first entry says.
#[derive(Clone, Debug)]
struct Submission {
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
    /// When it was committed, by the coordinator's clock.
    pub time: Timestamp,
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
    #[error("there is no run at {run}; see which there are with `whimbrel runs`")]
    NoRun {
        /// The run's URI.
        run: String,
    },
    /// An entry is not what was written.
    #[error("the log entry {object} cannot be used; restore it from a copy of the run's directory")]
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

impl History {
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
        let mut history = Self::begin(folder, first)?;
        let mut known = stream::iter(1..listed)
            .map(|number| async move { Ok::<_, LogError>((number, read_entry(folder, number).await?)) })
            .buffered(AHEAD);
        while let Some((number, found)) = known.try_next().await? {
            let hole = || LogError::Hole { object: folder.uri_of(&entry::name(number)) };
            history.push(folder, found.ok_or_else(hole)?)?;
        }
        drop(known);
        history.read_on(folder).await?;
        Ok(history)
    }

    fn begin(folder: &Folder, first: Entry) -> Result<Self, LogError> {
        match &first.record {
            Record::Submitted { spec, submitter } if first.epoch == 0 => {
                let submission = Submission { spec: spec.clone(), submitter: *submitter };
                Ok(Self { first: submission, entries: vec![first] })
            }
            _ => Err(LogError::Order {
                object: folder.uri_of(&entry::name(0)),
                why: "a log starts with the submission of its run, before anyone is in office",
            }),
        }
    }

    /// Reads what was appended since.
    pub(crate) async fn read_on(&mut self, folder: &Folder) -> Result<(), LogError> {
        while let Some(entry) = read_entry(folder, self.next_number()).await? {
            self.push(folder, entry)?;
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, folder: &Folder, entry: Entry) -> Result<(), LogError> {
        let takes_office = matches!(entry.record, Record::Office { .. });
        let wrong = if entry.number != self.next_number() {
            Some("its number is not its name's")
        } else if takes_office && entry.epoch <= self.epoch() {
            Some("a coordinator took office without a higher epoch")
        } else if !takes_office && entry.epoch != self.epoch() {
            Some("it was written by a coordinator that was not in office")
        } else {
            None
        };
        match wrong {
            None => self.entries.push(entry),
            Some(why) => {
                let object = folder.uri_of(&entry::name(self.next_number()));
                return Err(LogError::Order { object, why });
            }
        }
        Ok(())
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

    /// Who looks after the run.
    pub fn submitter(&self) -> Mode {
        self.first.submitter
    }

    /// The epoch in force; 0 when nobody has taken office yet.
    pub fn epoch(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.epoch)
    }

    /// The coordinator in office.
    pub fn coordinator(&self) -> Option<&str> {
        self.entries.iter().rev().find_map(|entry| match &entry.record {
            Record::Office { coordinator } => Some(coordinator.as_str()),
            _ => None,
        })
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
        let decides = |record: &&Record| {
            matches!(record, Record::Stopped(_) | Record::Resumed { .. } | Record::Ended(_))
        };
        self.entries.iter().rev().map(|entry| &entry.record).find(decides)
    }

    /// The checkpoints that can be used: committed, not quarantined and not collected; newest last.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.all_checkpoints().into_iter().filter(|checkpoint| checkpoint.quarantined.is_none()).collect()
    }

    /// The committed checkpoints, quarantined ones included and collected ones not; newest last.
    ///
    /// A checkpoint that is committed once more counts as new: the state was computed and saved again, and found good.
    pub fn all_checkpoints(&self) -> Vec<CheckpointInfo> {
        let mut checkpoints: Vec<CheckpointInfo> = Vec::new();
        for entry in &self.entries {
            match &entry.record {
                Record::Checkpoint { step, manifest, bytes, state } => {
                    checkpoints.retain(|known| known.manifest != *manifest);
                    checkpoints.push(CheckpointInfo {
                        step: *step,
                        manifest: manifest.clone(),
                        time: entry.time,
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
        checkpoints
    }
}

/// Reads entry `number`; `None` if there is none.
pub(crate) async fn read_entry(folder: &Folder, number: u64) -> Result<Option<Entry>, LogError> {
    let name = entry::name(number);
    let Some(bytes) = folder.get(&name).await? else { return Ok(None) };
    let unusable = |source| LogError::Entry { object: folder.uri_of(&name), source };
    Entry::decode(&bytes).map(Some).map_err(unusable)
}
