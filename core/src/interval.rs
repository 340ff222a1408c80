//! How often checkpoints are taken where that is left to the core.
//!
//! A checkpoint every τ seconds costs C/τ of the time, C being how long training stands still for one; a failure, of which
//! there is one in M seconds, costs half an interval on average: τ/2M. The sum is least at τ = √(2CM): J. W. Young, "A
//! first order approximation to the optimum checkpoint interval", CACM 17(9), 1974. J. T. Daly, "A higher order estimate
//! of the optimum checkpoint interval for restart dumps", FGCS 22(3), 2006, shows that it stays within a few percent of
//! the best as long as C is small beside M, which one that costs more than half of M is not; that is then the interval.
//!
//! **C** is the mean over the last saves of the longest that training stood still for each on any worker. A save goes on
//! behind training after that, and the next one should not be due before it is done: no interval is shorter than the
//! longest of those saves took.
//!
//! **M** is the time trained over the failures in it, both counted since the run began. A failure is the loss of the
//! membership and the state with it; the loss of one of four members is a quarter of one, since it shows how near the
//! others are to it. A run without any does not live for ever: it begins with one failure in [`Timing::prior`], which
//! counts for less the more is seen.

use std::{collections::VecDeque, time::Duration};

use crate::facts::{Past, Timing};

/// So many saves back, their cost says what the next will cost.
const REMEMBERED: usize = 5;

/// What a checkpoint cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveCost {
    /// The longest that training stood still for it on any worker.
    pub stall: Duration,
    /// From the first slice's staging to the commit.
    pub duration: Duration,
}

/// The interval between checkpoints, and what it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// How often checkpoints are taken.
    pub every: Duration,
    /// What one costs; `None` while none was taken yet, and `every` is the time to the first.
    pub cost: Option<Duration>,
    /// Mean time between failures.
    pub between_failures: Duration,
    /// What keeps the interval from being the cheapest, if anything does.
    pub bound: Option<Bound>,
}

/// What keeps an interval from being the cheapest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A save takes so long.
    SaveTakes,
    /// [`Timing::least_interval`] or [`Timing::most_interval`].
    Limit,
}

/// What a run has seen of saves and failures.
#[derive(Debug)]
pub(crate) struct Experience {
    costs: VecDeque<SaveCost>,
    /// Time that generations have trained, but for the one that does.
    trained: Duration,
    /// Since when one trains.
    since: Option<Duration>,
    /// Memberships lost, parts of them included.
    failures: f64,
}

impl Experience {
    pub(crate) fn new(past: Past) -> Self {
        Self {
            costs: VecDeque::new(),
            trained: past.trained,
            since: None,
            failures: f64::from(past.failures),
        }
    }

    /// A checkpoint is committed.
    pub(crate) fn saved(&mut self, cost: SaveCost) {
        if self.costs.len() == REMEMBERED {
            self.costs.pop_front();
        }
        self.costs.push_back(cost);
    }

    /// A generation has begun.
    pub(crate) fn trains(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// No generation is there any more.
    pub(crate) fn rests(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.trained += now.saturating_sub(since);
        }
    }

    /// One of so many members is lost.
    pub(crate) fn lost_one_of(&mut self, members: usize) {
        self.failures += 1.0 / members.max(1) as f64;
    }

    /// How often checkpoints are to be taken.
    pub(crate) fn interval(&self, now: Duration, timing: &Timing) -> Interval {
        let trained = self.trained + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let between_failures = (timing.prior + trained).div_f64(1.0 + self.failures);
        let count = u32::try_from(self.costs.len()).unwrap_or(u32::MAX);
        if count == 0 {
            let every = timing.first_save;
            return Interval { every, cost: None, between_failures, bound: None };
        }
        let cost = self.costs.iter().map(|cost| cost.stall).sum::<Duration>() / count;
        let longest = self.costs.iter().map(|cost| cost.duration).max().unwrap_or_default();
        let cheapest = if cost * 2 < between_failures {
            Duration::from_secs_f64((2.0 * cost.as_secs_f64() * between_failures.as_secs_f64()).sqrt())
        } else {
            between_failures
        };
        let (least, most) = (timing.least_interval, timing.most_interval);
        let bounded = cheapest.clamp(least, most.max(least));
        let (every, bound) = match longest {
            longest if longest > bounded => (longest, Some(Bound::SaveTakes)),
            _ if bounded != cheapest => (bounded, Some(Bound::Limit)),
            _ => (cheapest, None),
        };
        Interval { every, cost: Some(cost), between_failures, bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn experienced(stall: f64, duration: f64, trained: Duration, failures: u32) -> Interval {
        let mut experience = Experience::new(Past { trained, failures });
        let seconds = Duration::from_secs_f64;
        experience.saved(SaveCost { stall: seconds(stall), duration: seconds(duration) });
        experience.interval(Duration::ZERO, &Timing::default())
    }

    #[test]
    fn the_interval_is_the_root_of_twice_the_cost_and_the_time_between_failures() {
        // 12 h by the prior and 31.6 h of training with three failures: one in 10.9 h.
        let interval = experienced(0.8, 5.0, HOUR * 158 / 5, 3);
        assert_eq!(interval.between_failures, HOUR * 109 / 10);
        assert!((interval.every.as_secs_f64() - 250.57).abs() < 0.01, "{:?}", interval.every);
        assert_eq!((interval.cost, interval.bound), (Some(Duration::from_millis(800)), None));
    }

    #[test]
    fn no_interval_is_cheaper_near_the_one_chosen() {
        for (stall, failures) in [(0.1, 0), (0.8, 3), (2.0, 40)] {
            let interval = experienced(stall, 1.0, HOUR * 30, failures);
            let lost = |every: f64| stall / every + every / (2.0 * interval.between_failures.as_secs_f64());
            let every = interval.every.as_secs_f64();
            assert!(lost(every) < lost(every * 1.05) && lost(every) < lost(every * 0.95), "{interval:?}");
        }
    }

    #[test]
    fn it_is_never_shorter_than_a_save_takes_nor_beyond_its_limits() {
        let slow = experienced(0.1, 900.0, HOUR, 3);
        assert_eq!((slow.every, slow.bound), (Duration::from_secs(900), Some(Bound::SaveTakes)));
        let free = experienced(0.0, 0.1, HOUR, 0);
        assert_eq!((free.every, free.bound), (Timing::default().least_interval, Some(Bound::Limit)));
        let steady = experienced(60.0, 70.0, HOUR * 100_000, 0);
        assert_eq!((steady.every, steady.bound), (Timing::default().most_interval, Some(Bound::Limit)));
        // Failures so near that most of the time goes into checkpoints: Daly's other case.
        let hopeless = experienced(1000.0, 1000.0, HOUR, 60);
        assert!(hopeless.every >= hopeless.between_failures, "{hopeless:?}");
    }

    #[test]
    fn before_the_first_save_its_cost_is_not_known() {
        let interval = Experience::new(Past::default()).interval(HOUR, &Timing::default());
        assert_eq!((interval.every, interval.cost), (Timing::default().first_save, None));
    }

    #[test]
    fn only_time_in_training_counts_and_the_last_saves() {
        let timing = Timing::default();
        let mut experience = Experience::new(Past::default());
        experience.trains(HOUR);
        experience.trains(HOUR * 2);
        assert_eq!(experience.interval(HOUR * 3, &timing).between_failures, timing.prior + HOUR * 2);
        experience.rests(HOUR * 4);
        for _ in 0..4 {
            experience.lost_one_of(4);
        }
        assert_eq!(experience.interval(HOUR * 90, &timing).between_failures, (timing.prior + HOUR * 3) / 2);
        for stall in [90, 2, 2, 3, 3, 5] {
            let stall = Duration::from_secs(stall);
            experience.saved(SaveCost { stall, duration: stall });
        }
        assert_eq!(experience.interval(HOUR * 90, &timing).cost, Some(Duration::from_secs(3)));
    }
}
