//! How much a save, a restore or a copy does at once.

use std::num::NonZeroU64;

/// Bounds on the size of packs, on parallel transfers and on bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of tensors in a pack. The pack's header comes on top.
    pub pack_bytes: usize,
    /// The most transfers in flight. The store's pace may allow fewer. A save holds nothing in memory but the staged
    /// copy; a restore holds two blocks of 4 MiB for each transfer.
    pub concurrency: usize,
    /// The most bytes per second at which packs are put; `None` means no limit.
    pub bandwidth: Option<NonZeroU64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pack_bytes: 64 << 20, concurrency: 16, bandwidth: None }
    }
}
