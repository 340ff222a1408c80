//! How much of a store's bandwidth, and of memory, saving and restoring may use at once. The caller sets these limits.

use std::num::NonZeroU64;

/// Limits of one save, restore or copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of tensors in a pack; its header comes on top.
    pub pack_bytes: usize,
    /// The most transfers in flight. Fewer are used where more do not raise the throughput. A save needs no memory
    /// besides the staged copy; a restore needs two blocks of 4 MiB for each transfer.
    pub concurrency: usize,
    /// The most bytes a second that packs are uploaded with; `None` for no limit.
    pub bandwidth: Option<NonZeroU64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pack_bytes: 64 << 20, concurrency: 16, bandwidth: None }
    }
}
