//! The manifest, which makes a set of packs a checkpoint: which part of the state is in which pack, with hashes.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{blocks, fingerprint::Fingerprint, hash::Hash, layout::Layout};

/// The version of the manifest's format: the one that this program writes, and the highest that it reads.
pub const FORMAT: u32 = 1;

/// A checkpoint: the state after `step` steps, spread over packs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format that it is written in.
    pub format: u32,
    /// The run it belongs to.
    pub run: String,
    /// Steps applied to this state. The data position is a function of the step alone.
    pub step: u64,
    /// The generation whose workers staged it: all slices are of one lineage.
    pub generation: u64,
    /// Samples in the data set that it was trained on; their order depends on this number.
    pub samples: u64,
    /// What tells that data set apart from another one.
    #[serde(default, skip_serializing_if = "Fingerprint::is_empty")]
    pub fingerprint: Fingerprint,
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
    /// The parts of the state that it holds.
    pub pieces: Vec<Piece>,
    /// The chaining values of its [blocks], if it has more than one. Their root is [`hash`](Self::hash); with them, part of a
    /// pack can be verified without the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Hash>,
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

impl Pack {
    /// The byte range of block `index` of the pack, which can be verified without the rest.
    pub fn block(&self, index: u64) -> Range<u64> {
        blocks::range(index, self.length)
    }

    fn check_blocks(&self) -> Result<(), ManifestError> {
        let count = blocks::count(self.length);
        let good = match self.blocks.as_slice() {
            [] => count == 1,
            known => known.len() as u64 == count && blocks::root(known) == Some(self.hash),
        };
        if good { Ok(()) } else { Err(ManifestError::Blocks(self.hash)) }
    }
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
    /// A later Whimbrel wrote it.
    #[error("its format is {0}, and this program reads up to {FORMAT}; use a newer whimbrel")]
    Format(u32),
    /// A byte of the state is in no pack, or in two.
    #[error("found byte {found} of the state, not byte {expected}: a piece is missing or occurs twice")]
    Gap {
        /// The byte of the state that should come next.
        expected: u64,
        /// The byte of the state that comes.
        found: u64,
    },
    /// A piece lies outside its pack.
    #[error("pack {0} is too short for the pieces it should hold")]
    OutsidePack(Hash),
    /// The hashes of a pack's blocks are not those of the pack.
    #[error("the block hashes of pack {0} do not combine to the hash of the pack")]
    Blocks(Hash),
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
    /// Checks that the packs hold every byte of the state exactly once, in order, each inside its pack,
    /// and that the hashes of a pack's blocks are those of the pack.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format > FORMAT {
            return Err(ManifestError::Format(self.format));
        }
        let mut end = 0_u64;
        for pack in &self.packs {
            pack.check_blocks()?;
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
        self.packs.iter().fold(0, |sum, pack| sum.saturating_add(pack.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::TensorSpec;

    /// A state of 9 MiB in one pack of three blocks.
    fn manifest() -> Manifest {
        let content: Vec<u8> = (0..9_u32 << 20).map(|at| (at >> 7) as u8).collect();
        let length = content.len() as u64;
        let (hash, blocks) = blocks::hash([content.as_slice()], length);
        let layout = Layout::new(vec![TensorSpec::f32("w", [content.len() / 4])]).unwrap();
        let packs = vec![Pack { hash, length, pieces: vec![Piece { offset: 0, start: 0, length }], blocks }];
        Manifest {
            format: FORMAT,
            run: "r".into(),
            step: 1,
            generation: 1,
            samples: 1,
            fingerprint: Default::default(),
            layout,
            packs,
        }
    }

    #[test]
    fn blocks_that_do_not_match_their_pack_are_refused() {
        let good = manifest();
        good.check().unwrap();
        assert_eq!(good.packs[0].block(2), 8 << 20..9 << 20);
        let spoil: [fn(&mut Manifest); 5] = [
            |manifest| manifest.packs[0].blocks.truncate(2),
            |manifest| manifest.packs[0].blocks.clear(),
            |manifest| manifest.packs[0].blocks.push(Hash::of(b"more")),
            |manifest| manifest.packs[0].blocks.swap(0, 1),
            |manifest| manifest.packs[0].length = u64::MAX,
        ];
        for spoil in spoil {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(matches!(bad.check(), Err(ManifestError::Blocks(_))), "{:?}", bad.packs[0].length);
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_a_higher_format_is_refused() {
        let text = serde_json::to_string(&manifest()).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest());
        let newer = Manifest { format: FORMAT + 1, ..manifest() };
        assert!(matches!(newer.check(), Err(ManifestError::Format(_))));
    }

    #[test]
    fn sums_of_hostile_lengths_do_not_overflow() {
        let mut bad = manifest();
        bad.packs[0].length = u64::MAX;
        bad.packs.push(bad.packs[0].clone());
        assert_eq!(bad.stored_bytes(), u64::MAX);
    }
}
