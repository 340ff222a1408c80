//! Consecutive blocks of a pack, which are read in one request.

use std::{ops::Range, sync::Arc};

use whimbrel_state::{
    Pack,
    blocks::{self, BLOCK},
};

/// Consecutive blocks of a pack.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) pack: Arc<Pack>,
    /// The blocks, by their number in the pack.
    pub(crate) blocks: Range<u64>,
}

impl Extent {
    /// All blocks of a pack.
    pub(crate) fn whole(pack: Arc<Pack>) -> Self {
        let blocks = all_blocks(&pack);
        Self { pack, blocks }
    }

    /// Its length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.clone().map(|index| self.pack.block(index)).map(|range| range.end - range.start).sum()
    }
}

/// The blocks of a pack, by their number.
pub(crate) fn all_blocks(pack: &Pack) -> Range<u64> {
    0..blocks::count(pack.length)
}

/// The blocks of a pack that hold a range of its bytes.
pub(crate) fn blocks_holding(pack: &Pack, range: &Range<u64>) -> Range<u64> {
    if blocks::count(pack.length) == 1 { 0..1 } else { range.start / BLOCK..range.end.div_ceil(BLOCK) }
}
