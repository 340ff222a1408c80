//! The memory that a copy takes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use whimbrel_state::blocks::BLOCK;

/// Bytes of packs in memory at a time, on their way from one store to the other: eight packs of 64 MiB. On fast links
/// that is enough to keep the processors busy, and slow links are full with fewer.
const BYTES: u64 = 512 << 20;

/// The unit in which bytes are counted. Packs are held in blocks, and the last block takes as much memory as the
/// others.
const UNIT: u64 = BLOCK;

/// A budget of memory for packs in flight. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct MemoryBudget {
    free: Arc<Semaphore>,
    units: u32,
}

impl MemoryBudget {
    pub(super) fn new() -> Self {
        Self::of(BYTES)
    }

    fn of(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits until so many bytes are free, in the order of the calls. They are taken until the permit is dropped. A
    /// pack that is larger than the budget takes all of it.
    pub(super) async fn reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        // The semaphore is never closed. If it were, the copy would go on and take more memory.
        Arc::clone(&self.free).acquire_many_owned(units).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn packs_share_the_budget_and_one_larger_than_it_takes_it_alone() {
        let budget = MemoryBudget::of(10 * UNIT);
        let reserve = |bytes| budget.reserve(bytes).now_or_never();
        let small = reserve(3 * UNIT + 1).unwrap();
        let medium = reserve(6 * UNIT).unwrap();
        assert!(reserve(1).is_none(), "it is full");
        drop(small);
        let tiny = reserve(1).unwrap();
        assert!(reserve(1 << 50).is_none(), "the largest waits for all of it");
        drop((medium, tiny));
        let _largest = reserve(1 << 50).unwrap();
        assert!(reserve(1).is_none());
    }
}
