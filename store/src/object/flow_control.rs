//! Flow control towards one store: how many transfers run at a time, and how many bytes a second are sent.
//!
//! Each opened store has one [`FlowControl`], shared by all users of the store. [`ConcurrencyLimit`] and [`RateLimit`]
//! decide; this file adds the clock and the waiting.

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

use super::concurrency_limit::{ConcurrencyLimit, RateLimit};

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the store.
    Upload,
    /// From the store.
    Download,
}

/// The flow control of one store.
#[derive(Debug)]
pub(crate) struct FlowControl {
    created: Instant,
    uploads: Lane,
    downloads: Lane,
    rate_limit: Mutex<RateLimit>,
    /// One permit for each processor: more hashes at a time would only delay the first.
    hashing: Semaphore,
}

/// The transfers of one direction.
#[derive(Debug)]
struct Lane {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: ConcurrencyLimit,
    in_flight: usize,
}

impl Lane {
    fn new() -> Self {
        Self {
            state: Mutex::new(State { limit: ConcurrencyLimit::new(), in_flight: 0 }),
            freed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// Locks plain numbers, which stay valid if a thread panics while it holds the lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FlowControl {
    pub(crate) fn new() -> Self {
        Self {
            created: Instant::now(),
            uploads: Lane::new(),
            downloads: Lane::new(),
            rate_limit: Mutex::default(),
            hashing: Semaphore::new(available_parallelism().map_or(1, NonZeroUsize::get)),
        }
    }

    fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::Upload => &self.uploads,
            Direction::Download => &self.downloads,
        }
    }

    fn now(&self) -> Duration {
        self.created.elapsed()
    }

    /// Waits until another transfer may start: fewer are in flight than the limit and `upper` allow. The transfer counts
    /// as in flight until the permit is dropped.
    pub(crate) async fn acquire(self: &Arc<Self>, direction: Direction, upper: usize) -> Permit {
        let (lane, upper) = (self.lane(direction), upper.max(1));
        loop {
            let freed = lane.freed.notified();
            tokio::pin!(freed);
            // Registered before the check: no change is missed.
            freed.as_mut().enable();
            {
                let mut state = lane.state();
                if state.in_flight < state.limit.limit().min(upper) {
                    state.in_flight += 1;
                    return Permit { flow_control: Arc::clone(self), direction };
                }
                state.limit.contended(upper);
            }
            freed.await;
        }
    }

    /// Waits until `bytes` may be sent within the bandwidth; not at all if there is no limit.
    pub(crate) async fn wait_for_bandwidth(&self, bytes: u64, bandwidth: Option<NonZeroU64>) {
        if let Some(rate) = bandwidth {
            let wait = locked(&self.rate_limit).reserve(self.now(), bytes, rate);
            sleep(wait).await;
        }
    }

    /// How long the bytes of a transfer may take: as long as at an eighth of the recent speed, or at `slowest` bytes per
    /// second if that is faster.
    pub(crate) fn transfer_time(&self, direction: Direction, bytes: u64, slowest: u64) -> Duration {
        let speed = self.lane(direction).state().limit.speed().unwrap_or(0);
        Duration::from_secs_f64(bytes as f64 / (speed / 8).max(slowest).max(1) as f64)
    }

    /// The start of a transfer, or of a part of one.
    pub(crate) fn start(&self) -> Started {
        Started(self.now())
    }

    /// A transfer, or a part of one, is done.
    pub(crate) fn succeeded(&self, direction: Direction, started: Started, bytes: u64) {
        let lane = self.lane(direction);
        let mut state = lane.state();
        let before = state.limit.limit();
        state.limit.succeeded(self.now(), started.0, bytes);
        let after = state.limit.limit();
        drop(state);
        if after != before {
            tracing::debug!(?direction, before, after, "concurrency limit changed");
            lane.freed.notify_waiters();
        }
    }

    /// The store asked to slow down, or a transfer timed out.
    pub(crate) fn pushed_back(&self, direction: Direction, started: Started) {
        let mut state = self.lane(direction).state();
        state.limit.pushed_back(self.now(), started.0);
        tracing::debug!(
            ?direction,
            after = state.limit.limit(),
            "the store pushed back: concurrency limit lowered"
        );
    }

    /// Waits until a processor is free for hashing.
    pub(crate) async fn hashing_permit(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed. If it were, hashing without a permit would still be correct.
        self.hashing.acquire().await.ok()
    }
}

/// When a transfer was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started(Duration);

/// A transfer in flight.
#[derive(Debug)]
pub(crate) struct Permit {
    flow_control: Arc<FlowControl>,
    direction: Direction,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let lane = self.flow_control.lane(self.direction);
        lane.state().in_flight -= 1;
        lane.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_waiting_transfer_starts_when_another_is_done() {
        let flow_control = Arc::new(FlowControl::new());
        let mut in_flight: Vec<Permit> = Vec::new();
        for _ in 0..4 {
            in_flight.push(flow_control.acquire(Direction::Upload, 8).await);
        }
        let fifth = flow_control.acquire(Direction::Upload, 8);
        tokio::pin!(fifth);
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(
            flow_control.acquire(Direction::Download, 8).now_or_never().is_some(),
            "downloads have a limit of their own"
        );
        in_flight.pop();
        fifth.await;
        drop(in_flight);
        let _one = flow_control.acquire(Direction::Upload, 1).now_or_never().unwrap();
        assert!(
            flow_control.acquire(Direction::Upload, 1).now_or_never().is_none(),
            "a caller who allows one transfer waits for that one"
        );
        assert!(flow_control.acquire(Direction::Upload, 2).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_beyond_the_bandwidth_wait() {
        let flow_control = FlowControl::new();
        let began = Instant::now();
        for _ in 0..3 {
            flow_control.wait_for_bandwidth(1_000_000, NonZeroU64::new(500_000)).await;
        }
        assert_eq!(began.elapsed().as_secs(), 4, "the third waits for the two before it");
        flow_control.wait_for_bandwidth(1_000_000, None).await;
        assert_eq!(began.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_are_shorter_for_a_fast_store_and_bounded_for_a_slow_one() {
        let flow_control = FlowControl::new();
        let transfer_time = |flow_control: &FlowControl| {
            flow_control.transfer_time(Direction::Upload, 64 << 20, 1 << 20).as_secs()
        };
        assert_eq!(transfer_time(&flow_control), 64);
        let started = flow_control.start();
        tokio::time::advance(Duration::from_secs(1)).await;
        flow_control.succeeded(Direction::Upload, started, 64 << 20);
        assert_eq!(transfer_time(&flow_control), 8);
        let started = flow_control.start();
        tokio::time::advance(Duration::from_secs(3)).await;
        for _ in 0..40 {
            flow_control.pushed_back(Direction::Upload, started);
        }
        assert_eq!(transfer_time(&flow_control), 64);
    }
}
