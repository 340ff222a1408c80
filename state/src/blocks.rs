//! The blocks of a pack: 4 MiB each, so that part of a pack can be verified without reading the rest.
//!
//! BLAKE3 is a tree hash, and a block of 4 MiB that starts at a multiple of 4 MiB is a complete subtree. The *chaining value*
//! of each block depends on its bytes and on its offset, and the hash of the whole is the root above all chaining values:
//! they verify exactly what the hash verifies, block by block. Section 2.1 of the BLAKE3 paper describes the tree.

use std::ops::Range;

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::hash::Hash;

/// Bytes of a block; the last one of a pack may be shorter. The tree requires a power of two.
pub const BLOCK: u64 = 4 << 20;

/// The number of blocks in `length` bytes: at least one.
pub fn count(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1)
}

/// The byte range of block `index` in `length` bytes.
pub fn range(index: u64, length: u64) -> Range<u64> {
    let start = index.saturating_mul(BLOCK).min(length);
    start..start.saturating_add(BLOCK).min(length)
}

/// The hash of the content whose blocks have these chaining values; `None` for fewer than two, since a single block has a
/// hash and no chaining value.
pub fn root(blocks: &[Hash]) -> Option<Hash> {
    let (left, right) = halves(blocks)?;
    Some(merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).into())
}

/// The chaining value of several blocks.
fn merge(blocks: &[Hash]) -> [u8; 32] {
    match halves(blocks) {
        Some((left, right)) => merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash),
        None => blocks.first().map_or([0; 32], |block| *block.as_bytes()),
    }
}

/// The left subtree of a node has the largest power of two of blocks that is less than all.
fn halves(blocks: &[Hash]) -> Option<(&[Hash], &[Hash])> {
    let count = blocks.len();
    (count > 1).then(|| blocks.split_at(count.next_power_of_two() / 2))
}

/// Hashes one block: to its plain BLAKE3 if it is the only one, otherwise to its chaining value.
#[derive(Debug)]
pub struct BlockHasher {
    hasher: Hasher,
    single: bool,
}

impl BlockHasher {
    /// Begins block `index` of a content of `length` bytes.
    pub fn new(index: u64, length: u64) -> Self {
        let mut hasher = Hasher::new();
        let single = count(length) == 1;
        if !single {
            hasher.set_input_offset(index.saturating_mul(BLOCK));
        }
        Self { hasher, single }
    }

    /// Adds bytes. Panics if they are more than [`BLOCK`] in all and the block is not the only one.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash or chaining value of the added bytes. Panics if there are none and the block is not the only one.
    pub fn finish(&self) -> Hash {
        if self.single { self.hasher.finalize().into() } else { self.hasher.finalize_non_root().into() }
    }
}

/// Hashes a content and its blocks in one pass. Returns the hash and the chaining values, none if there is only one block.
///
/// `parts` together must be `length` bytes.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>, length: u64) -> (Hash, Vec<Hash>) {
    let mut blocks = Vec::new();
    let mut hasher = BlockHasher::new(0, length);
    let mut remaining = BLOCK as usize;
    for mut part in parts {
        while !part.is_empty() {
            // Only if more bytes follow: the last block may be a full one.
            if remaining == 0 {
                blocks.push(hasher.finish());
                hasher = BlockHasher::new(blocks.len() as u64, length);
                remaining = BLOCK as usize;
            }
            let (now, later) = part.split_at(part.len().min(remaining));
            hasher.update(now);
            remaining -= now.len();
            part = later;
        }
    }
    let last = hasher.finish();
    if blocks.is_empty() {
        return (last, blocks);
    }
    blocks.push(last);
    (root(&blocks).unwrap_or(last), blocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes in which no two blocks are equal.
    fn bytes(length: usize, seed: u64) -> Vec<u8> {
        let mut output = vec![0; length];
        Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut output);
        output
    }

    fn check(content: &[u8], part: usize) {
        let length = content.len() as u64;
        let (whole, blocks) = hash(content.chunks(part), length);
        assert_eq!(whole, Hash::of(content));
        let expected = if count(length) == 1 { 0 } else { count(length) };
        assert_eq!(blocks.len() as u64, expected);
        for (index, block) in blocks.iter().enumerate() {
            let range = range(index as u64, length);
            let mut alone = BlockHasher::new(index as u64, length);
            alone.update(&content[range.start as usize..range.end as usize]);
            assert_eq!(alone.finish(), *block);
        }
        assert_eq!(root(&blocks), (!blocks.is_empty()).then_some(whole));
    }

    #[test]
    fn the_root_of_the_blocks_is_the_hash_at_every_edge() {
        let block = BLOCK as usize;
        let content = bytes(9 * block + 1, 7);
        let lengths = (1..=9).flat_map(|blocks| [blocks * block - 1, blocks * block, blocks * block + 1]);
        for length in [0, 1, 1024, 1025].into_iter().chain(lengths) {
            check(&content[..length], 300_007);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn the_root_of_the_blocks_is_the_hash_of_the_whole(
            length in 0..6 * BLOCK as usize, part in 1..2 * BLOCK as usize, seed: u64,
        ) {
            check(&bytes(length, seed), part);
        }

        #[test]
        fn a_block_with_other_bytes_or_another_offset_has_another_hash(
            length in BLOCK as usize + 1..4 * BLOCK as usize, at: prop::sample::Index, bit in 0_u32..8, seed: u64,
        ) {
            let mut content = bytes(length, seed);
            let (whole, blocks) = hash([content.as_slice()], length as u64);
            let at = at.index(length);
            content[at] ^= 1_u8 << bit;
            let (other, others) = hash([content.as_slice()], length as u64);
            prop_assert_ne!(whole, other);
            for (index, (block, other)) in blocks.iter().zip(&others).enumerate() {
                let changed = range(index as u64, length as u64).contains(&(at as u64));
                prop_assert_eq!(block != other, changed);
            }
            let mut swapped = blocks.clone();
            swapped.swap(0, 1);
            prop_assert_ne!(root(&swapped), Some(whole));
        }
    }
}
