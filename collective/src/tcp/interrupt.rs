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
    /// Ends every operation of generation `generation` and lower at once with
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

/// The generations that were interrupted, and the waits to wake.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// The highest generation interrupted; generations count from 1.
    through: AtomicU64,
    wakers: Mutex<Vec<Weak<Waker>>>,
}

impl Interrupts {
    /// Whether `generation` was interrupted.
    pub(crate) fn includes(&self, generation: u64) -> bool {
        self.through.load(Ordering::SeqCst) >= generation
    }

    /// Wakes this waker, too, from now on.
    pub(crate) fn register(&self, waker: &Arc<Waker>) {
        let mut wakers = self.lock();
        wakers.retain(|waker| waker.strong_count() > 0);
        wakers.push(Arc::downgrade(waker));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Waker>>> {
        // The list is valid even if a holder of the lock panicked.
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
