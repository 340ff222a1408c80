//! What makes a set of packs a checkpoint: which part of the state is where, with hashes.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{hash::Hash, layout::Layout};

/// The version of the manifest's format that this program writes.
pub const FORMAT: u32 = 1;

/// A checkpoint: the state after `step` steps, spread over packs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The run it belongs to.
    pub run: String,
    /// Steps applied to this state. The data position is a function of the step alone.
    pub step: u64,
    /// The generation whose workers staged it: all slices are of one lineage.
    pub generation: u64,
    /// Samples in the data set that it was trained on: their order is a function of their number.
    pub samples: u64,
    /// The tensors.
    pub layout: Layout,
    /// The packs, in the order of the state's bytes.
    pub packs: Vec<Pack>,
}

/// An immutable object that holds pieces of tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// BLAKE3 of the whole object, which is also its name.
    pub hash: Hash,
    /// Length of the whole object in bytes.
    pub length: u64,
    /// What it holds.
    pub pieces: Vec<Piece>,
}

/// Consecutive bytes of the state within a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// The byte of the pack at which the piece starts.
    pub offset: u64,
    /// The byte of the state at which the piece starts.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Piece {
    /// The bytes of the state that the piece holds.
    pub fn state_range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.length)
    }
}

/// A manifest that does not describe a whole state.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Written by a later Whimbrel.
    #[error("its format is {0}, and this program reads up to {FORMAT}; use a newer whimbrel")]
    Format(u32),
    /// A byte of the state is in no pack, or in two.
    #[error("bytes {found} of the state come where byte {expected} should: a piece is missing or doubled")]
    Gap {
        /// The next byte that was to come.
        expected: u64,
        /// The byte that came.
        found: u64,
    },
    /// A piece lies outside its pack.
    #[error("pack {0} is too short for the pieces it should hold")]
    OutsidePack(Hash),
    /// The packs end before the state does.
    #[error("its packs hold {found} bytes of a state of {expected}")]
    Short {
        /// Bytes of the state.
        expected: u64,
        /// Bytes in packs.
        found: u64,
    },
}

impl Manifest {
    /// Checks that the packs hold every byte of the state exactly once, in order, each inside its pack.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format > FORMAT {
            return Err(ManifestError::Format(self.format));
        }
        let mut end = 0_u64;
        for pack in &self.packs {
            for piece in &pack.pieces {
                if piece.start != end {
                    return Err(ManifestError::Gap { expected: end, found: piece.start });
                }
                if piece.offset.checked_add(piece.length).is_none_or(|past| past > pack.length) {
                    return Err(ManifestError::OutsidePack(pack.hash));
                }
                end = end.saturating_add(piece.length);
            }
        }
        let expected = self.layout.bytes() as u64;
        if end != expected {
            return Err(ManifestError::Short { expected, found: end });
        }
        Ok(())
    }

    /// Bytes of all packs.
    pub fn stored_bytes(&self) -> u64 {
        self.packs.iter().map(|pack| pack.length).sum()
    }
}
