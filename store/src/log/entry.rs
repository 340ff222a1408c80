//! An entry of the run log, and how it is written down.
//!
//! An entry is one line, `{"entry":{…},"blake3":"…"}`, where the hash is that of the bytes between the first colon and
//! the last comma. A flipped bit anywhere in it is therefore noticed, which matters more here than anywhere else: the
//! log is what says which checkpoint to trust.
//!
//! Fields that this program does not know are ignored, so that a later one may say more. What an earlier program must
//! *not* ignore, such as a new kind of record, raises the format of the entries that say it, and a program that meets a
//! higher format than [`FORMAT`] refuses the log.
//!
//! | format | says besides |
//! | --- | --- |
//! | 1 | – |
//! | 2 | that a term is a replica's ([`ReplicaOf`]), and where a checkpoint was committed first ([`Origin`]) |
//!
//! An entry that says nothing of format 2 is written in format 1, so that a program that knows no more goes on reading
//! the runs that were never mirrored. It could not make sense of a replica's log: two terms of one epoch are an error
//! to it, and it would take the order of the commits for that of the checkpoints.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use whimbrel_state::Hash;

/// The highest version of the log's format that this program reads, and the highest that it writes.
pub const FORMAT: u32 = 2;

/// One entry of a run log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The least version of the format that says what it does: [`Record::format`].
    pub format: u32,
    /// Its place in the log, from 0; also its name.
    pub number: u64,
    /// The epoch of the coordinator that wrote it; 0 for the first entry, which is written before anyone is leading the run.
    pub epoch: u64,
    /// The random name of the write, by which the writer tells its own entry from another's after a lost answer.
    pub writer: String,
    /// When it was written, by the writer's clock. For people: nothing is decided by it.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}

/// What an entry tells. In JSON its kind is in the field `record`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The run was submitted. The first entry, and only the first.
    Submitted {
        /// The run spec, in TOML.
        spec: String,
        /// Who looks after the run.
        submitter: Mode,
    },
    /// A coordinator started a term; the entry's epoch is its term.
    Term {
        /// Who, in words for people: a host, a process.
        coordinator: String,
        /// What it copies, if it does nothing but keep this directory in step with another of the same run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replica_of: Option<ReplicaOf>,
    },
    /// A checkpoint was committed.
    Checkpoint {
        /// Steps applied to the state.
        step: u64,
        /// The manifest's name in the run's directory.
        manifest: String,
        /// Bytes of its packs.
        bytes: u64,
        /// The digest of the state, if somebody computed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Hash>,
        /// Where it was committed first, if this entry is a copy's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Origin>,
    },
    /// A checkpoint was found damaged and is not to be used.
    Quarantined {
        /// The manifest's name.
        manifest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Checkpoints that are no longer wanted: from here on they may be gone, and so may packs that no checkpoint named
    /// until here.
    Collected {
        /// The manifests' names; none if only such packs go.
        manifests: Vec<String>,
    },
    /// The run was stopped and can be resumed.
    Stopped(Stopped),
    /// Somebody had the run go on, or took it up where it was left: what was said before of its being stopped or over counts
    /// no more, wherever that is still to be read.
    Resumed {
        /// The step of the checkpoint it goes on from; 0 for the beginning.
        step: u64,
    },
    /// The run is over.
    Ended(Ended),
}

/// What the term of a replica says: the directory it keeps is a copy of another, the *source*, made for whoever holds the
/// source's term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaOf {
    /// The URI of the source.
    pub source: String,
    /// The identity of the term that the source was under: the [`writer`](Entry::writer) of the entry by which a
    /// coordinator took it. It is the same in every copy, and copies of copies.
    pub term: String,
    /// The identities of the terms before that one which this log does not tell of, since they were over before the
    /// copy was made; the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
}

/// Where and when a checkpoint was committed by the coordinator that made it.
///
/// Copies may be made in any order. Within a run's lineage an epoch is held in one directory only, so epoch and number
/// order the checkpoints of all its copies alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The coordinator's epoch.
    pub epoch: u64,
    /// The number of the entry in the log that it wrote.
    pub entry: u64,
    /// When, by its clock.
    pub time: Timestamp,
}

/// Where and why a run was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// Steps done.
    pub step: u64,
    /// Why, in words for people.
    pub reason: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// In one word.
    pub outcome: Outcome,
    /// Steps done.
    pub step: u64,
    /// The training loss of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The last validation loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// The digest of the final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Hash>,
    /// Why it failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who looks after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A coordinator inside the command that started the run, gone when that is.
    Embedded,
    /// A coordinator that runs as a service.
    Service,
}

/// How a run ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All its steps are done.
    Finished,
    /// It could not go on.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl Record {
    /// The least version of the format that says this.
    pub fn format(&self) -> u32 {
        match self {
            Self::Term { replica_of: Some(_), .. } | Self::Checkpoint { origin: Some(_), .. } => 2,
            _ => 1,
        }
    }
}

/// Bytes that are not an entry this program can use.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The frame around the entry is not whole.
    #[error("it does not have the form of a log entry: it was cut short or overwritten")]
    Frame,
    /// The content is not what was hashed.
    #[error("it is damaged: its content hashes to {found}, and says {expected}")]
    Damaged {
        /// The hash it carries.
        expected: Hash,
        /// The hash of what it holds.
        found: Hash,
    },
    /// Written by a later Whimbrel.
    #[error("its format is {0}, and this program reads up to {FORMAT}; use a newer whimbrel")]
    Newer(u32),
    /// Whole, and yet not what an entry looks like.
    #[error("it is not a log entry")]
    Content(#[source] serde_json::Error),
}

impl EntryError {
    /// Whether the entry is damaged, and not only of a later Whimbrel.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Newer(_))
    }

    /// What helps, if this does not say so itself.
    pub(crate) fn advice(&self) -> &'static str {
        if self.is_damage() { "; restore it from a copy of the run's directory" } else { "" }
    }
}

/// Bytes that an entry stays below by far: the longest holds a run spec, or the names of many checkpoints.
pub(crate) const MOST_BYTES: u64 = 16 << 20;

const BEFORE: &[u8] = b"{\"entry\":";
const BETWEEN: &[u8] = b",\"blake3\":\"";
const AFTER: &[u8] = b"\"}\n";
const DIGITS: usize = 64;

impl Entry {
    /// The bytes of its object.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let content = serde_json::to_vec(self).map_err(EntryError::Content)?;
        let hash = Hash::of(&content).to_string();
        Ok([BEFORE, &content, BETWEEN, hash.as_bytes(), AFTER].concat())
    }

    /// Reads what [`encode`](Self::encode) wrote, and nothing else: any other bytes are an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let framed = bytes.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER));
        let (rest, digits) =
            framed.and_then(|rest| rest.split_last_chunk::<DIGITS>()).ok_or(EntryError::Frame)?;
        let content = rest.strip_suffix(BETWEEN).ok_or(EntryError::Frame)?;
        let found = Hash::of(content);
        let digits = str::from_utf8(digits).map_err(|_| EntryError::Frame)?;
        // Compared as text: the digits A-F would be the same hash, and a flipped bit makes them of a-f.
        if digits != found.to_string() {
            let expected = digits.parse().map_err(|_| EntryError::Frame)?;
            return Err(EntryError::Damaged { expected, found });
        }
        let Format { format } = serde_json::from_slice(content).map_err(EntryError::Content)?;
        if format > FORMAT {
            return Err(EntryError::Newer(format));
        }
        serde_json::from_slice(content).map_err(EntryError::Content)
    }
}

/// As much of an entry as every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The name of entry `number` in the run's directory.
pub(crate) fn name(number: u64) -> String {
    format!("log/{number:020}.json")
}

/// The number of the entry of this name.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log/")?.strip_suffix(".json")?;
    digits.parse().ok().filter(|&number| self::name(number) == name)
}
