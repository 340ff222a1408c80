//! How many transfers at a time pay, and how fast one goes: decisions, without a clock or a socket.
//!
//! Up while it pays: the number is doubled, later raised by one, and kept if the bytes of a second grew by it; if not, it
//! goes back to what it was. Down when the store pushes back: halved, once for all transfers that were under way then.

use std::{num::NonZeroU64, time::Duration};

/// Transfers at a time to begin with.
const START: usize = 4;
/// More transfers at a time than this pay nowhere, whatever callers allow.
const MOST: usize = 64;
/// A number is judged when it has been in use for so long, and for two rounds.
const JUDGED_AFTER: Duration = Duration::from_millis(200);
/// How long a number stays that was found best, in time and in judgements.
const REST: (Duration, u32) = (Duration::from_secs(30), 8);
/// How long a number stays that the store asked for.
const REST_AFTER_PUSH: (Duration, u32) = (Duration::from_secs(10), 1);
/// Growing the number by a share must make the rate grow by this part of that share.
const PAYS: f64 = 0.25;
/// Transfers shorter than this say nothing of how fast one goes: it is the answer that takes their time.
const TELLING: u64 = 256 << 10;
/// How much the last transfer counts in the speed of one.
const NEWEST: f64 = 0.25;

/// How transfers in one direction to one store go. Times are since any moment, the same for all.
#[derive(Clone, Debug)]
pub(crate) struct Pacing {
    limit: usize,
    /// What callers allow at most, the largest of them.
    upper: usize,
    /// Nothing was judged unfavourably yet: growing is doubling.
    fresh: bool,
    window: Window,
    /// The number and rate before it was last raised, until that is judged.
    before: Option<(usize, f64)>,
    /// The number stays until then, and for so many judgements more.
    rests: (Duration, u32),
    pushed_at: Option<Duration>,
    /// Bytes a second of one transfer, as they go lately.
    speed: Option<f64>,
}

/// What was moved since the number was last set.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Option<Duration>,
    bytes: u64,
    done: usize,
    /// Somebody had to wait: with a higher number more would have been under way.
    contended: bool,
}

impl Pacing {
    pub(crate) fn new() -> Self {
        Self {
            limit: START,
            upper: START,
            fresh: true,
            window: Window::default(),
            before: None,
            rests: (Duration::ZERO, 0),
            pushed_at: None,
            speed: None,
        }
    }

    /// Transfers that may be under way at a time.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Somebody who allows `upper` has to wait.
    pub(crate) fn contended(&mut self, upper: usize) {
        self.upper = self.upper.max(upper.min(MOST));
        self.window.contended |= upper > self.limit;
    }

    /// Bytes a second of one transfer; `None` before there was one to tell by.
    pub(crate) fn speed(&self) -> Option<u64> {
        self.speed.map(|speed| speed as u64)
    }

    /// A transfer, or a part of one, of `bytes` that was begun at `began` is done.
    pub(crate) fn succeeded(&mut self, now: Duration, began: Duration, bytes: u64) {
        let took = now.saturating_sub(began).as_secs_f64();
        if bytes >= TELLING && took > 0.0 {
            let speed = bytes as f64 / took;
            self.speed = Some(self.speed.map_or(speed, |before| before + NEWEST * (speed - before)));
        }
        // The window begins with the first that began in it: what came before was moved at another number.
        let since = *self.window.since.get_or_insert(began.max(self.pushed_at.unwrap_or(began)));
        self.window.bytes = self.window.bytes.saturating_add(bytes);
        self.window.done += 1;
        let lasted = now.saturating_sub(since);
        if lasted >= JUDGED_AFTER && self.window.done >= 2 * self.limit {
            self.judge(now, self.window.bytes as f64 / lasted.as_secs_f64());
        }
    }

    /// The store pushed back on a transfer that was begun at `began`: it asked to slow down, or did not get on.
    pub(crate) fn pushed_back(&mut self, now: Duration, began: Duration) {
        // What one transfer may take grows, or the next attempt would be given up as this one was.
        self.speed = self.speed.map(|speed| speed / 2.0);
        if self.pushed_at.is_some_and(|pushed| began < pushed) {
            return;
        }
        self.pushed_at = Some(now);
        self.fresh = false;
        self.before = None;
        self.rest(now, REST_AFTER_PUSH);
        self.set(now, (self.limit / 2).max(1));
    }

    fn judge(&mut self, now: Duration, rate: f64) {
        let contended = self.window.contended;
        if let Some((limit, earlier)) = self.before.take() {
            let share = self.limit as f64 / limit as f64 - 1.0;
            if contended && rate < earlier * (1.0 + PAYS * share) {
                self.fresh = false;
                self.rest(now, REST);
                return self.set(now, limit);
            }
        }
        let higher = if self.fresh { self.limit * 2 } else { self.limit + 1 };
        let higher = higher.min(self.upper);
        let (until, judgements) = self.rests;
        self.rests.1 = judgements.saturating_sub(1);
        if contended && higher > self.limit && now >= until && judgements == 0 {
            self.before = Some((self.limit, rate));
            return self.set(now, higher);
        }
        self.set(now, self.limit);
    }

    fn rest(&mut self, now: Duration, (time, judgements): (Duration, u32)) {
        self.rests = (now + time, judgements);
    }

    fn set(&mut self, now: Duration, limit: usize) {
        self.limit = limit;
        self.window = Window { since: Some(now), ..Window::default() };
    }
}

/// Spreads bytes over time so that on the whole no more than a given number go in a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    free_at: Duration,
}

impl Bucket {
    /// How long to wait, from `now` on, before `bytes` may be sent.
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

    /// A store that moves `rate(n)` bytes a second with `n` transfers under way, each its share.
    struct Simulated {
        pacing: Pacing,
        now: Duration,
        upper: usize,
    }

    impl Simulated {
        fn new(upper: usize) -> Self {
            Self { pacing: Pacing::new(), now: Duration::from_secs(5), upper }
        }

        /// Moves packs in rounds of as many as are allowed; returns how often each number was in use.
        fn run(&mut self, rounds: usize, rate: impl Fn(usize) -> f64) -> BTreeMap<usize, usize> {
            let mut used = BTreeMap::new();
            for _ in 0..rounds {
                let limit = self.pacing.limit();
                *used.entry(limit).or_default() += 1;
                self.pacing.contended(self.upper);
                let began = self.now;
                self.now += Duration::from_secs_f64((limit as u64 * PACK) as f64 / rate(limit));
                for _ in 0..limit {
                    self.pacing.contended(self.upper);
                    self.pacing.succeeded(self.now, began, PACK);
                }
            }
            used
        }
    }

    #[test]
    fn while_each_transfer_adds_its_own_speed_the_number_grows_to_the_bound() {
        let mut store = Simulated::new(16);
        store.run(12, |transfers| transfers as f64 * 60e6);
        assert_eq!(store.pacing.limit(), 16);
        assert!((55_000_000..65_000_000).contains(&store.pacing.speed().unwrap()));
    }

    #[test]
    fn where_more_transfers_only_share_one_link_the_number_stays_small() {
        let mut store = Simulated::new(16);
        let used = store.run(100, |_| 6.25e6);
        assert!(used[&4] > 80, "{used:?}");
        assert!(used.keys().all(|&limit| limit <= 8), "{used:?}");
    }

    #[test]
    fn nobody_waiting_is_no_reason_to_grow() {
        let mut store = Simulated::new(4);
        store.run(50, |transfers| transfers as f64 * 60e6);
        assert_eq!(store.pacing.limit(), 4);
    }

    #[test]
    fn a_push_back_halves_once_for_all_that_were_under_way_and_growth_comes_back_by_ones() {
        let mut store = Simulated::new(16);
        store.run(12, |transfers| transfers as f64 * 60e6);
        let began = store.now;
        store.now += Duration::from_secs(1);
        for _ in 0..16 {
            store.pacing.pushed_back(store.now, began);
        }
        assert_eq!(store.pacing.limit(), 8);
        store.pacing.pushed_back(store.now, store.now);
        assert_eq!(store.pacing.limit(), 4, "a transfer begun since was pushed back too");
        let used = store.run(400, |transfers| transfers as f64 * 60e6);
        assert!((4..=16).all(|limit| used.contains_key(&limit)), "up one by one: {used:?}");
        assert_eq!(store.pacing.limit(), 16);
    }

    #[test]
    fn a_speed_that_a_time_out_belies_is_halved() {
        let mut pacing = Pacing::new();
        pacing.succeeded(Duration::from_secs(1), Duration::ZERO, 8 << 20);
        pacing.pushed_back(Duration::from_secs(9), Duration::from_secs(1));
        assert_eq!(pacing.speed(), Some(4 << 20));
    }

    proptest! {
        #[test]
        fn the_number_stays_between_one_and_the_bound(
            events in prop::collection::vec((0_u64..4000, 0_u64..4000, any::<u64>(), 0..3), 0..300),
            upper in 1_usize..40,
        ) {
            let mut pacing = Pacing::new();
            let mut now = Duration::from_secs(10);
            for (passed, ago, bytes, kind) in events {
                now += Duration::from_millis(passed);
                let began = now - Duration::from_millis(ago);
                match kind {
                    0 => pacing.succeeded(now, began, bytes),
                    1 => pacing.pushed_back(now, began),
                    _ => pacing.contended(upper),
                }
                prop_assert!((1..=upper.max(START)).contains(&pacing.limit()));
            }
        }

        #[test]
        fn no_more_than_the_cap_is_sent_but_for_one_transfer(
            sends in prop::collection::vec((0_u64..3000, 1..200_u64 << 20), 1..50), rate in 1 << 16..1_u64 << 30,
        ) {
            let (mut bucket, mut now, mut sent) = (Bucket::default(), Duration::ZERO, 0);
            let rate = NonZeroU64::new(rate).unwrap();
            for (passed, bytes) in sends {
                now += Duration::from_millis(passed);
                let starts = now + bucket.reserve(now, bytes, rate);
                prop_assert!(sent as f64 <= rate.get() as f64 * starts.as_secs_f64() + 1.0);
                sent += bytes;
            }
        }
    }
}
