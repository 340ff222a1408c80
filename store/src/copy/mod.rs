//! Copying a run's checkpoints to another store, from wherever to wherever.
//!
//! [`plan_copy`] reads both sides and says what will move; [`CopyPlan::carry_out`] moves it. A copy that was cut off is
//! made again: what arrived stays, and at most the packs that were under way move once more.
//!
//! In order: the copy's term is taken (see [`replica`](crate::log::lineage)), so that nothing is sent to where it is not
//! wanted; packs move, those of the newest checkpoint first, each compared with its hash on the way, before it is put;
//! a checkpoint's manifest is put, and the log told, once all its packs are there; last come the workers' output, and
//! whether the run was stopped or has ended. So what is interrupted leaves checkpoints that are whole and packs that
//! nothing refers to, and the newest checkpoint, which is the one that somebody would resume from, is there first. The
//! order of the commits does not matter: each says where it was made ([`Origin`](crate::Origin)).

mod execute;
mod memory_budget;
mod plan;
mod recover_from;
pub mod replicate;
mod run_outcome;
mod transfer;

use whimbrel_plan::RunId;
use whimbrel_state::Hash;

pub use plan::{CopyPlan, Planned, plan_copy};
pub(crate) use plan::{Usable, check_names, log_of, plan};
pub use recover_from::{is_ahead, newer, recover_from};

use crate::{
    checkpoint::{
        block_reader::BadPack,
        commit::{CommitError, ReadManifestError},
    },
    log::{lineage::ReplicaLogError, run_log::LogError, term::AppendError},
    object::folder::StoreError,
};

/// Which checkpoints to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that can be used.
    All,
    /// The newest.
    Newest,
    /// That of this step; the newest, if there are several.
    Step(u64),
}

/// A number of packs and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Packs.
    pub packs: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }

    fn add_all(&mut self, other: Self) {
        self.packs += other.packs;
        self.bytes += other.bytes;
    }
}

/// What happened during a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyProgress {
    /// A pack that was to move has arrived.
    Moved {
        /// Its bytes.
        bytes: u64,
    },
    /// A pack that was to move was there after all.
    Found {
        /// Its bytes.
        bytes: u64,
    },
    /// A pack cannot be copied.
    Bad {
        /// Which.
        pack: Hash,
        /// Its bytes.
        bytes: u64,
    },
    /// A checkpoint is whole and committed in the destination.
    Committed {
        /// Its step.
        step: u64,
    },
}

/// What a copy did.
#[derive(Debug, Default)]
pub struct Copied {
    /// The steps of the checkpoints that it committed, in that order.
    pub committed: Vec<u64>,
    /// What it moved.
    pub moved: Amount,
    /// Objects of the workers' output that it copied.
    pub output: usize,
    /// Packs that could not be copied, since the source does not have them as they were put.
    pub bad: Amount,
    /// Checkpoints of the source that were not copied, since they are damaged or of a later Whimbrel.
    pub left_out: Vec<LeftOut>,
    /// The source has saved checkpoints since the copy was planned: they are not in it, nor is whether the run was stopped or
    /// has ended since.
    pub source_went_on: bool,
    /// All packs of the checkpoints that were left out for one of them.
    pub(crate) spared: Vec<Hash>,
}

impl Copied {
    /// Adds what was copied after it.
    fn add(&mut self, next: Self) {
        let Self { committed, moved, output, bad, left_out, source_went_on, spared } = next;
        self.committed.extend(committed);
        self.moved.add_all(moved);
        self.output += output;
        self.bad.add_all(bad);
        self.left_out.extend(left_out);
        self.source_went_on |= source_went_on;
        self.spared.extend(spared);
    }
}

/// A checkpoint that cannot be copied.
#[derive(Debug)]
pub struct LeftOut {
    /// Its step.
    pub step: u64,
    /// Its manifest's name.
    pub manifest: String,
    /// Why.
    pub why: Unusable,
}

/// Why a checkpoint of the source cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Its manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ReadManifestError),
    /// A pack is missing or damaged.
    #[error(transparent)]
    Pack(#[from] BadPack),
}

impl Unusable {
    /// Whether it is damaged, and not only of a later Whimbrel.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Manifest(source) if !source.is_damage())
    }
}

/// A copy that was not made, or not in full. Made again, it goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The two are not of one name. A run keeps its own in every store: it is written in its manifests.
    #[error(
        "{source_uri} is run {source_id}, and {destination} would be run {destination_id}: a copy keeps its run's name"
    )]
    OtherName {
        /// The source's URI.
        source_uri: String,
        /// The run in it.
        source_id: RunId,
        /// The destination's URI.
        destination: String,
        /// The run that it would be.
        destination_id: RunId,
    },
    /// There is no checkpoint to copy.
    #[error(
        "{source_uri} has no checkpoint of step {step} that can be used; see which it has with `whimbrel checkpoint list`"
    )]
    NoSuchStep {
        /// The source's URI.
        source_uri: String,
        /// The step.
        step: u64,
    },
    /// The source's log cannot be read.
    #[error(transparent)]
    Source(#[from] LogError),
    /// The destination will not be a copy of the source.
    #[error(transparent)]
    Replica(#[from] ReplicaLogError),
    /// Another took the destination's term.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A checkpoint whose packs were put lacks some of them.
    #[error(
        "the checkpoint of step {step} does not become whole in {destination}: packs that were put are not there"
    )]
    NotWhole {
        /// Its step.
        step: u64,
        /// The destination's URI.
        destination: String,
        /// What its commit said.
        source: CommitError,
    },
    /// A checkpoint that is to come back is one of a later Whimbrel: this one does not know whether it is damaged.
    #[error("the checkpoint of step {step} cannot be brought back")]
    Unreadable {
        /// Its step.
        step: u64,
        /// What its manifest is.
        source: ReadManifestError,
    },
    /// A request to the source or the destination failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
