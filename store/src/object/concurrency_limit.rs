//! An adaptive concurrency limit: how many transfers to run at a time. Pure decisions, without a clock or a socket;
//! [`FlowControl`](super::flow_control::FlowControl) calls it with the time of each transfer.
//!
//! | event | limit |
//! | --- | --- |
//! | at first, while callers wait | doubled after each measurement |
//! | later, while callers wait | raised by one after each measurement |
//! | a raise did not raise the throughput enough | set back, and kept for a while |
//! | the store pushes back (429, 503, a timeout) | halved, once for all transfers then in flight |

use std::{num::NonZeroU64, time::Duration};

/// The limit at first.
const START: usize = 4;
/// The highest limit, whatever callers allow: more transfers help no store.
const MOST: usize = 64;
/// The throughput under a limit is measured for at least so long, and for two rounds of transfers.
const MEASURED_FOR: Duration = Duration::from_millis(200);
/// How long the limit stays after a raise did not help: at least this time, and this many measurements.
const HOLD: (Duration, u32) = (Duration::from_secs(30), 8);
/// How long the limit stays after the store pushed back.
const HOLD_AFTER_PUSH: (Duration, u32) = (Duration::from_secs(10), 1);
/// A raise by x percent is kept if the throughput grew by at least this part of x percent.
const WORTHWHILE: f64 = 0.25;
/// Transfers of fewer bytes do not count for the speed: most of their time is latency.
const MEASURABLE: u64 = 256 << 10;
/// The weight of the newest transfer in the moving average of the speed.
const NEWEST: f64 = 0.25;

/// The concurrency limit of transfers in one direction to one store. All times are measured from the same moment, which
/// may be any.
#[derive(Clone, Debug)]
pub(crate) struct ConcurrencyLimit {
    limit: usize,
    /// The largest concurrency that a waiting caller allows.
    upper: usize,
    /// No raise has failed and the store has not pushed back: a raise doubles the limit.
    is_doubling: bool,
    window: Window,
    /// The limit and the throughput before the last raise, until that raise is measured.
    before: Option<(usize, f64)>,
    /// The limit is not raised before this time, nor before so many more measurements.
    held: (Duration, u32),
    pushed_at: Option<Duration>,
    /// Bytes per second of one transfer: a moving average.
    speed: Option<f64>,
}

/// The transfers since the limit was last set: what the throughput is measured by.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Option<Duration>,
    bytes: u64,
    done: usize,
    /// A caller had to wait: a higher limit would have been used.
    contended: bool,
}

impl ConcurrencyLimit {
    pub(crate) fn new() -> Self {
        Self {
            limit: START,
            upper: START,
            is_doubling: true,
            window: Window::default(),
            before: None,
            held: (Duration::ZERO, 0),
            pushed_at: None,
            speed: None,
        }
    }

    /// The number of transfers that may be in flight.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// A caller who allows `upper` transfers has to wait.
    pub(crate) fn contended(&mut self, upper: usize) {
        self.upper = self.upper.max(upper.min(MOST));
        self.window.contended |= upper > self.limit;
    }

    /// Bytes per second of one transfer; `None` before one was measured.
    pub(crate) fn speed(&self) -> Option<u64> {
        self.speed.map(|speed| speed as u64)
    }

    /// A transfer, or a part of one, of `bytes` that started at `started` is done.
    pub(crate) fn succeeded(&mut self, now: Duration, started: Duration, bytes: u64) {
        let took = now.saturating_sub(started).as_secs_f64();
        if bytes >= MEASURABLE && took > 0.0 {
            let speed = bytes as f64 / took;
            self.speed = Some(self.speed.map_or(speed, |before| before + NEWEST * (speed - before)));
        }
        // The window starts with the first transfer that started in it: earlier ones ran under another limit.
        let since = *self.window.since.get_or_insert(started.max(self.pushed_at.unwrap_or(started)));
        self.window.bytes = self.window.bytes.saturating_add(bytes);
        self.window.done += 1;
        let lasted = now.saturating_sub(since);
        if lasted >= MEASURED_FOR && self.window.done >= 2 * self.limit {
            self.adjust(now, self.window.bytes as f64 / lasted.as_secs_f64());
        }
    }

    /// The store pushed back on a transfer that started at `started`: it asked to slow down, or the transfer timed out.
    pub(crate) fn pushed_back(&mut self, now: Duration, started: Duration) {
        // The deadline of a transfer follows the speed. Without this the next attempt would time out as this one did.
        self.speed = self.speed.map(|speed| speed / 2.0);
        if self.pushed_at.is_some_and(|pushed| started < pushed) {
            return;
        }
        self.pushed_at = Some(now);
        self.is_doubling = false;
        self.before = None;
        self.hold(now, HOLD_AFTER_PUSH);
        self.set(now, (self.limit / 2).max(1));
    }

    /// Keeps, raises or takes back the limit, by the throughput measured under it.
    fn adjust(&mut self, now: Duration, rate: f64) {
        let contended = self.window.contended;
        if let Some((limit, earlier)) = self.before.take() {
            let share = self.limit as f64 / limit as f64 - 1.0;
            if contended && rate < earlier * (1.0 + WORTHWHILE * share) {
                self.is_doubling = false;
                self.hold(now, HOLD);
                return self.set(now, limit);
            }
        }
        let higher = if self.is_doubling { self.limit * 2 } else { self.limit + 1 };
        let higher = higher.min(self.upper);
        let (until, measurements) = self.held;
        self.held.1 = measurements.saturating_sub(1);
        if contended && higher > self.limit && now >= until && measurements == 0 {
            self.before = Some((self.limit, rate));
            return self.set(now, higher);
        }
        self.set(now, self.limit);
    }

    fn hold(&mut self, now: Duration, (time, measurements): (Duration, u32)) {
        self.held = (now + time, measurements);
    }

    fn set(&mut self, now: Duration, limit: usize) {
        self.limit = limit;
        self.window = Window { since: Some(now), ..Window::default() };
    }
}

/// A rate limit: spreads bytes over time, so that on average no more than a given number are sent in a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateLimit {
    free_at: Duration,
}

impl RateLimit {
    /// How long to wait from `now` before `bytes` may be sent.
    pub(crate) fn reserve(&mut self, now: Duration, bytes: u64, rate: NonZeroU64) -> Duration {
        let start = self.free_at.max(now);
        let takes = bytes as f64 / rate.get() as f64;
        self.free_at = start.saturating_add(Duration::try_from_secs_f64(takes).unwrap_or(Duration::MAX));
        start - now
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PACK: u64 = 64 << 20;

    /// A store that moves `rate(n)` bytes a second with `n` transfers in flight, an equal share each.
    struct Simulated {
        limit: ConcurrencyLimit,
        now: Duration,
        upper: usize,
    }

    impl Simulated {
        fn new(upper: usize) -> Self {
            Self { limit: ConcurrencyLimit::new(), now: Duration::from_secs(5), upper }
        }

        /// Moves packs in rounds of as many as the limit allows; returns how many rounds each limit was in use.
        fn run(&mut self, rounds: usize, rate: impl Fn(usize) -> f64) -> BTreeMap<usize, usize> {
            let mut used = BTreeMap::new();
            for _ in 0..rounds {
                let limit = self.limit.limit();
                *used.entry(limit).or_default() += 1;
                self.limit.contended(self.upper);
                let started = self.now;
                self.now += Duration::from_secs_f64((limit as u64 * PACK) as f64 / rate(limit));
                for _ in 0..limit {
                    self.limit.contended(self.upper);
                    self.limit.succeeded(self.now, started, PACK);
                }
            }
            used
        }
    }

    #[test]
    fn the_limit_grows_to_the_bound_while_each_transfer_adds_its_own_speed() {
        let mut store = Simulated::new(16);
        store.run(12, |transfers| transfers as f64 * 60e6);
        assert_eq!(store.limit.limit(), 16);
        assert!((55_000_000..65_000_000).contains(&store.limit.speed().unwrap()));
    }

    #[test]
    fn the_limit_stays_small_where_transfers_share_one_link() {
        let mut store = Simulated::new(16);
        let used = store.run(100, |_| 6.25e6);
        assert!(used[&4] > 80, "{used:?}");
        assert!(used.keys().all(|&limit| limit <= 8), "{used:?}");
    }

    #[test]
    fn the_limit_does_not_grow_while_no_caller_waits() {
        let mut store = Simulated::new(4);
        store.run(50, |transfers| transfers as f64 * 60e6);
        assert_eq!(store.limit.limit(), 4);
    }

    #[test]
    fn a_push_back_halves_the_limit_once_and_later_raises_are_by_one() {
        let mut store = Simulated::new(16);
        store.run(12, |transfers| transfers as f64 * 60e6);
        let started = store.now;
        store.now += Duration::from_secs(1);
        for _ in 0..16 {
            store.limit.pushed_back(store.now, started);
        }
        assert_eq!(store.limit.limit(), 8);
        store.limit.pushed_back(store.now, store.now);
        assert_eq!(store.limit.limit(), 4, "a transfer started since was pushed back too");
        let used = store.run(400, |transfers| transfers as f64 * 60e6);
        assert!((4..=16).all(|limit| used.contains_key(&limit)), "up one by one: {used:?}");
        assert_eq!(store.limit.limit(), 16);
    }

    #[test]
    fn a_timeout_halves_the_measured_speed() {
        let mut limit = ConcurrencyLimit::new();
        limit.succeeded(Duration::from_secs(1), Duration::ZERO, 8 << 20);
        limit.pushed_back(Duration::from_secs(9), Duration::from_secs(1));
        assert_eq!(limit.speed(), Some(4 << 20));
    }

    proptest! {
        #[test]
        fn the_limit_stays_between_one_and_the_bound(
            events in prop::collection::vec((0_u64..4000, 0_u64..4000, any::<u64>(), 0..3), 0..300),
            upper in 1_usize..40,
        ) {
            let mut limit = ConcurrencyLimit::new();
            let mut now = Duration::from_secs(10);
            for (passed, ago, bytes, kind) in events {
                now += Duration::from_millis(passed);
                let started = now - Duration::from_millis(ago);
                match kind {
                    0 => limit.succeeded(now, started, bytes),
                    1 => limit.pushed_back(now, started),
                    _ => limit.contended(upper),
                }
                prop_assert!((1..=upper.max(START)).contains(&limit.limit()));
            }
        }

        #[test]
        fn the_rate_limit_is_exceeded_by_one_transfer_at_most(
            sends in prop::collection::vec((0_u64..3000, 1..200_u64 << 20), 1..50), rate in 1 << 16..1_u64 << 30,
        ) {
            let (mut rate_limit, mut now, mut sent) = (RateLimit::default(), Duration::ZERO, 0);
            let rate = NonZeroU64::new(rate).unwrap();
            for (passed, bytes) in sends {
                now += Duration::from_millis(passed);
                let starts = now + rate_limit.reserve(now, bytes, rate);
                prop_assert!(sent as f64 <= rate.get() as f64 * starts.as_secs_f64() + 1.0);
                sent += bytes;
            }
        }
    }
}
