//! What a copy reports: its progress, what it moved, and which checkpoints it skipped.

use std::ops::AddAssign;

use whimbrel_state::Hash;

use crate::checkpoint::{BadPack, ReadManifestError};

/// A number of objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    /// Adds one object.
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// What a copy moves, by the kind of object. Entries of the log are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySize {
    /// Packs.
    pub packs: Amount,
    /// Manifests.
    pub manifests: Amount,
    /// The workers' output.
    pub output: Amount,
}

impl CopySize {
    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.packs.bytes + self.manifests.bytes + self.output.bytes
    }
}

/// An event of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyProgress {
    /// A planned pack has arrived.
    Moved {
        /// Its bytes.
        bytes: u64,
    },
    /// A planned pack was in the destination already.
    Found {
        /// Its bytes.
        bytes: u64,
    },
    /// A pack cannot be copied: it is missing or damaged in the source.
    Bad {
        /// The pack.
        pack: Hash,
        /// Its bytes.
        bytes: u64,
    },
    /// A checkpoint is whole in the destination and committed there.
    Committed {
        /// Its step.
        step: u64,
        /// Bytes of its manifest.
        bytes: u64,
    },
    /// An object of the workers' output has arrived.
    Output {
        /// Its bytes.
        bytes: u64,
    },
}

/// What a copy did.
#[derive(Debug, Default)]
pub struct Copied {
    /// The steps of the checkpoints committed, in the order of their commits.
    pub committed: Vec<u64>,
    /// What it moved.
    pub moved: CopySize,
    /// Packs that are missing or damaged in the source.
    pub bad: Amount,
    /// Checkpoints of the source that were not copied.
    pub skipped: Vec<SkippedCheckpoint>,
    /// The source has saved checkpoints since the copy was planned. They are not copied, nor is whether the run was
    /// stopped or has ended since.
    pub source_went_on: bool,
    /// All packs of the checkpoints that were skipped because of a bad pack.
    pub(super) packs_of_skipped: Vec<Hash>,
}

impl Copied {
    /// Adds what a later copy did.
    pub(super) fn add(&mut self, next: Self) {
        let Self { committed, moved, bad, skipped, source_went_on, packs_of_skipped } = next;
        self.committed.extend(committed);
        self.moved.packs += moved.packs;
        self.moved.manifests += moved.manifests;
        self.moved.output += moved.output;
        self.bad += bad;
        self.skipped.extend(skipped);
        self.source_went_on |= source_went_on;
        self.packs_of_skipped.extend(packs_of_skipped);
    }
}

/// A checkpoint of the source that was not copied.
#[derive(Debug)]
pub struct SkippedCheckpoint {
    /// Its step.
    pub step: u64,
    /// Its manifest's name.
    pub manifest: String,
    /// Why.
    pub why: SkipReason,
}

/// Why a checkpoint of the source cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum SkipReason {
    /// Its manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ReadManifestError),
    /// A pack is missing or damaged.
    #[error(transparent)]
    Pack(#[from] BadPack),
}

impl SkipReason {
    /// Whether the checkpoint is damaged. Otherwise it is of a later Whimbrel.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Manifest(source) if !source.is_damage())
    }
}
