//! Ending operations from another thread.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use mio::Waker;

/// Ends the operations of an [`Endpoint`](crate::Endpoint) and its groups from any thread.
#[derive(Clone, Debug)]
pub struct Interrupter(pub(crate) Arc<Interrupts>);

impl Interrupter {
    /// Makes every operation of generation `generation` and lower end at once with
    /// [`Error::Interrupted`](crate::Error::Interrupted), also those begun later. Higher generations go on.
    pub fn interrupt(&self, generation: u64) {
        self.0.through.fetch_max(generation, Ordering::SeqCst);
        for waker in self.0.lock().iter().filter_map(Weak::upgrade) {
            if let Err(error) = waker.wake() {
                tracing::warn!(%error, generation, "could not wake an operation to interrupt it");
            }
        }
    }
}

/// What was interrupted, and who is to be woken.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// The highest generation interrupted; generations count from 1.
    through: AtomicU64,
    wakers: Mutex<Vec<Weak<Waker>>>,
}

impl Interrupts {
    /// Whether `generation` was interrupted.
    pub(crate) fn reach(&self, generation: u64) -> bool {
        self.through.load(Ordering::SeqCst) >= generation
    }

    /// Wakes this one, too, from now on.
    pub(crate) fn enlist(&self, waker: &Arc<Waker>) {
        let mut wakers = self.lock();
        wakers.retain(|waker| waker.strong_count() > 0);
        wakers.push(Arc::downgrade(waker));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Waker>>> {
        // A list of wakers is whole whatever its holder was doing when it panicked.
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
