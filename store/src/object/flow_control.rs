//! How fast a store is asked: one for each store that is opened, shared by all that use it.
//!
//! [`Pacing`] decides; here are the clock and the waiting.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::available_parallelism,
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

use crate::object::pacing::{Bucket, Pacing};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the store.
    Up,
    /// From it.
    Down,
}

/// The pace of one store.
#[derive(Debug)]
pub(crate) struct Pace {
    born: Instant,
    up: Lane,
    down: Lane,
    bucket: Mutex<Bucket>,
    /// One for each processor: more hashes at a time would only delay the first.
    hashing: Semaphore,
}

#[derive(Debug)]
struct Lane {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    pacing: Pacing,
    under_way: usize,
}

impl Lane {
    fn new() -> Self {
        Self { state: Mutex::new(State { pacing: Pacing::new(), under_way: 0 }), freed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// Plain numbers: whoever panicked in between left them as good as they were.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            born: Instant::now(),
            up: Lane::new(),
            down: Lane::new(),
            bucket: Mutex::default(),
            hashing: Semaphore::new(available_parallelism().map_or(1, NonZeroUsize::get)),
        }
    }

    fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    /// Waits until another transfer pays, with fewer than `upper` under way. It counts until the permit is dropped.
    pub(crate) async fn enter(self: &Arc<Self>, way: Way, upper: usize) -> Permit {
        let (lane, upper) = (self.lane(way), upper.max(1));
        loop {
            let freed = lane.freed.notified();
            tokio::pin!(freed);
            // From here on no change is missed.
            freed.as_mut().enable();
            {
                let mut state = lane.state();
                if state.under_way < state.pacing.limit().min(upper) {
                    state.under_way += 1;
                    return Permit { pace: Arc::clone(self), way };
                }
                state.pacing.contended(upper);
            }
            freed.await;
        }
    }

    /// Waits until `bytes` may be sent.
    pub(crate) async fn afford(&self, bytes: u64, bandwidth: Option<NonZeroU64>) {
        if let Some(rate) = bandwidth {
            let wait = locked(&self.bucket).reserve(self.now(), bytes, rate);
            sleep(wait).await;
        }
    }

    /// How long the bytes of a transfer may take: what eight times slower ones than lately would, but not as if they
    /// came slower than `slowest` bytes a second.
    pub(crate) fn allowance(&self, way: Way, bytes: u64, slowest: u64) -> Duration {
        let speed = self.lane(way).state().pacing.speed().unwrap_or(0);
        Duration::from_secs_f64(bytes as f64 / (speed / 8).max(slowest).max(1) as f64)
    }

    /// Begins a transfer, or a part of one.
    pub(crate) fn begin(&self) -> Began {
        Began(self.now())
    }

    /// A transfer, or a part of one, is done.
    pub(crate) fn succeeded(&self, way: Way, began: Began, bytes: u64) {
        let lane = self.lane(way);
        let mut state = lane.state();
        let before = state.pacing.limit();
        state.pacing.succeeded(self.now(), began.0, bytes);
        let after = state.pacing.limit();
        drop(state);
        if after != before {
            tracing::debug!(?way, before, after, "transfers at a time");
            lane.freed.notify_waiters();
        }
    }

    /// The store asked to slow down, or did not get on with a transfer.
    pub(crate) fn pushed_back(&self, way: Way, began: Began) {
        let mut state = self.lane(way).state();
        state.pacing.pushed_back(self.now(), began.0);
        tracing::debug!(?way, after = state.pacing.limit(), "pushed back: fewer transfers at a time");
    }

    /// Waits for a processor to hash with.
    pub(crate) async fn hashing(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed; if it were, hashing at once would still be right.
        self.hashing.acquire().await.ok()
    }
}

/// When a transfer was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began(Duration);

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Permit {
    pace: Arc<Pace>,
    way: Way,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let lane = self.pace.lane(self.way);
        lane.state().under_way -= 1;
        lane.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_gets_in_when_another_is_done() {
        let pace = Arc::new(Pace::new());
        let mut under_way: Vec<Permit> = Vec::new();
        for _ in 0..4 {
            under_way.push(pace.enter(Way::Up, 8).await);
        }
        let fifth = pace.enter(Way::Up, 8);
        tokio::pin!(fifth);
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(pace.enter(Way::Down, 8).now_or_never().is_some(), "the other way is another matter");
        under_way.pop();
        fifth.await;
        drop(under_way);
        let _one = pace.enter(Way::Up, 1).now_or_never().unwrap();
        assert!(pace.enter(Way::Up, 1).now_or_never().is_none(), "who allows one waits for that one");
        assert!(pace.enter(Way::Up, 2).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_beyond_the_cap_waits() {
        let pace = Pace::new();
        let began = Instant::now();
        for _ in 0..3 {
            pace.afford(1_000_000, NonZeroU64::new(500_000)).await;
        }
        assert_eq!(began.elapsed().as_secs(), 4, "the third waits for the two before it");
        pace.afford(1_000_000, None).await;
        assert_eq!(began.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_store_is_given_less_time_and_a_slow_one_no_less_than_promised() {
        let pace = Pace::new();
        let allowance = |pace: &Pace| pace.allowance(Way::Up, 64 << 20, 1 << 20).as_secs();
        assert_eq!(allowance(&pace), 64);
        let began = pace.begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        pace.succeeded(Way::Up, began, 64 << 20);
        assert_eq!(allowance(&pace), 8);
        let began = pace.begin();
        tokio::time::advance(Duration::from_secs(3)).await;
        for _ in 0..40 {
            pace.pushed_back(Way::Up, began);
        }
        assert_eq!(allowance(&pace), 64);
    }
}
