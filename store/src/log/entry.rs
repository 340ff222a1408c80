//! One entry of the run log, and its encoding.
//!
//! An entry is one line, `{"entry":{…},"blake3":"…"}`. The hash is that of the bytes between the first colon and the last
//! comma, so any flipped bit is noticed: the log says which checkpoint to trust, so it must not be damaged unnoticed.
//!
//! A reader ignores fields that it does not know, so a later version may add some. A change that earlier versions must not
//! ignore, such as a new kind of record, raises [`FORMAT`]; a reader refuses entries of a higher format than it knows.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use whimbrel_state::Hash;

/// The version of the log's format: the one that this program writes, and the highest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// One entry of a run log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the format that it is written in.
    pub format: u32,
    /// Its position in the log, from 0; also its object's name.
    pub number: u64,
    /// The epoch of the coordinator that wrote it; 0 for the first entry, which is written before the first term.
    pub epoch: u64,
    /// The random name of the write. By it the writer recognises its own entry after a lost answer.
    pub writer: String,
    /// When it was written, by the writer's clock. For display only: no decision depends on it, except that
    /// [`KeepEvery::Time`](crate::KeepEvery) spaces checkpoints by it.
    pub time: DateTime<Utc>,
    /// The event.
    #[serde(flatten)]
    pub record: Record,
}

/// The event that an entry records. In JSON its kind is in the field `record`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The run was submitted: the first entry, and only the first.
    Submitted {
        /// The run spec, in TOML.
        spec: String,
        /// Which kind of coordinator hosts the run.
        hosted_by: HostedBy,
    },
    /// A coordinator started a term. The entry's epoch is the term's.
    Term {
        /// A description of the coordinator for people: its host and process.
        coordinator: String,
        /// The directory that this one is a replica of; `None` if the coordinator leads the run here.
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
        /// The digest of the state, if it was computed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Hash>,
        /// The original commit, if this entry is in a copy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Origin>,
    },
    /// A checkpoint was found damaged and must not be used.
    Quarantined {
        /// The manifest's name.
        manifest: String,
        /// The damage.
        reason: String,
    },
    /// Checkpoints were given up. After this entry they may be deleted, and so may packs that no checkpoint before this
    /// entry named.
    Collected {
        /// The manifests' names; empty if only packs are deleted.
        manifests: Vec<String>,
    },
    /// The run was stopped and can be resumed.
    Stopped(Stopped),
    /// The run was resumed. Earlier entries that it was stopped or ended no longer apply, in this log and in every copy.
    Resumed {
        /// The step of the checkpoint that it continues from; 0 for the initial state.
        step: u64,
    },
    /// The run ended.
    Ended(Ended),
}

/// A replica's term: the directory is a copy of another directory of the run, the *source*, as of a term of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaOf {
    /// The URI of the source.
    pub source: String,
    /// The identity of the source's term: the [`writer`](Entry::writer) of the entry with which a coordinator started it.
    /// It is the same in every copy, and in copies of copies.
    pub term: String,
    /// The identities of earlier terms that this log has no entry of, since they ended before the copy was made; the
    /// oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prior_terms: Vec<String>,
}

/// The original commit of a checkpoint: by the coordinator that made it, in the directory that it led.
///
/// Copies of checkpoints may be committed in any order. Within a run's lineage only one directory has terms of an epoch,
/// so epoch and entry number order the checkpoints in all copies alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The coordinator's epoch.
    pub epoch: u64,
    /// The number of the entry in the log that it wrote.
    pub entry: u64,
    /// When, by the coordinator's clock.
    pub time: DateTime<Utc>,
}

/// Where and why a run was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// Steps done.
    pub step: u64,
    /// Why, for people.
    pub reason: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The outcome.
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
    /// Why it failed, was cancelled, or was ended by its program before the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which kind of coordinator hosts a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostedBy {
    /// A coordinator inside the command that started the run. It ends with the command.
    Embedded,
    /// A coordinator that runs as a service.
    Service,
}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All its steps are done.
    Finished,
    /// It could not continue.
    Failed,
    /// A user ended it.
    Cancelled,
}

/// Bytes that are not an entry this program can use.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The bytes are not framed as an entry.
    #[error("it does not have the form of a log entry: it was cut short or overwritten")]
    Frame,
    /// The content does not match its hash.
    #[error("it is damaged: its content hashes to {found}, and says {expected}")]
    Damaged {
        /// The hash in the entry.
        expected: Hash,
        /// The hash of the content.
        found: Hash,
    },
    /// A later version of Whimbrel wrote it.
    #[error("its format is {0}, and this program reads up to {FORMAT}; use a newer whimbrel")]
    Newer(u32),
    /// The hash matches, but the content is no entry.
    #[error("it is not a log entry")]
    Content(#[source] serde_json::Error),
}

impl EntryError {
    /// Whether the entry is damaged, and not merely of a later version.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Newer(_))
    }

    /// What to do, if the error's own text does not say so.
    pub(crate) fn advice(&self) -> &'static str {
        if self.is_damage() { "; restore it from a copy of the run's directory" } else { "" }
    }
}

/// No entry has more bytes: the longest hold a run spec, or the names of many checkpoints.
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

    /// Decodes what [`encode`](Self::encode) wrote. Any other bytes are an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let framed = bytes.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER));
        let (rest, digits) =
            framed.and_then(|rest| rest.split_last_chunk::<DIGITS>()).ok_or(EntryError::Frame)?;
        let content = rest.strip_suffix(BETWEEN).ok_or(EntryError::Frame)?;
        let found = Hash::of(content);
        let digits = str::from_utf8(digits).map_err(|_| EntryError::Frame)?;
        // Compared as text: a flipped bit can turn a digit a-f into A-F, which parses to the same hash.
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

/// The part of an entry that every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The object name of entry `number` in the run's directory.
pub(crate) fn name(number: u64) -> String {
    format!("log/{number:020}.json")
}

/// The number of the entry with this object name.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log/")?.strip_suffix(".json")?;
    digits.parse().ok().filter(|&number| self::name(number) == name)
}

/// The identity of the term that an entry starts; `None` if it starts none. A replica's term has the identity of the term
/// that it copies.
pub(crate) fn identity(entry: &Entry) -> Option<&str> {
    match &entry.record {
        Record::Term { replica_of: Some(replica), .. } => Some(&replica.term),
        Record::Term { replica_of: None, .. } => Some(&entry.writer),
        _ => None,
    }
}

/// The identities that an entry adds to the run's lineage, in order.
pub(super) fn identities(entry: &Entry) -> impl Iterator<Item = &str> {
    let prior_terms = match &entry.record {
        Record::Term { replica_of: Some(replica), .. } => replica.prior_terms.as_slice(),
        _ => &[],
    };
    prior_terms.iter().map(String::as_str).chain(identity(entry))
}
