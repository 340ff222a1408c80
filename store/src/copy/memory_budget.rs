//! The memory that a copy takes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use whimbrel_state::blocks::BLOCK;

/// Bytes of packs that are in memory at a time, on their way from one store to the other. With packs of 64 MiB it is
/// eight of them: on fast links as many as there are processors for, and on slow ones the links are full with fewer.
const BYTES: u64 = 512 << 20;

/// Bytes are counted by this many: packs are held in blocks, and the last one takes as much as the others.
const UNIT: u64 = BLOCK;

/// Room for packs on their way.
#[derive(Clone, Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    units: u32,
}

impl Room {
    pub(super) fn new() -> Self {
        Self::of(BYTES)
    }

    fn of(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits until there is room for so many bytes, in the order in which it is asked for. A pack that is larger than
    /// all the room has it to itself. The room is taken until the permit is dropped.
    pub(super) async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        // The semaphore is never closed; if it were, more memory would be the smaller harm.
        Arc::clone(&self.free).acquire_many_owned(units).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn no_more_is_let_in_than_there_is_room_for_and_the_largest_alone() {
        let room = Room::of(10 * UNIT);
        let take = |bytes| room.take(bytes).now_or_never();
        let small = take(3 * UNIT + 1).unwrap();
        let medium = take(6 * UNIT).unwrap();
        assert!(take(1).is_none(), "it is full");
        drop(small);
        let tiny = take(1).unwrap();
        assert!(take(1 << 50).is_none(), "the largest waits for all of it");
        drop((medium, tiny));
        let _largest = take(1 << 50).unwrap();
        assert!(take(1).is_none());
    }
}
