//! How often checkpoints are taken, if the core chooses (`checkpoint.every = "auto"`).
//!
//! Let C be the time for which a checkpoint blocks training, and M the mean time between failures. A checkpoint every
//! τ costs C/τ of the time. A failure costs half an interval on average, which is τ/2M of the time. The sum is least at
//! τ = √(2CM): J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974. J. T. Daly,
//! "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 22(3), 2006, shows that this stays
//! within a few percent of the optimum while C is less than M/2; above that, the interval is M.
//!
//! | value | estimate |
//! | --- | --- |
//! | C | The mean, over the last five saves, of the longest time for which training was blocked on any worker. |
//! | M | The time trained over the number of failures, both counted since the run began, plus one assumed failure in [`Timing::assumed_failure_interval`]. A failure is the loss of all members and so of the state; the loss of one of four members counts as a quarter. |
//!
//! A save continues in the background after training goes on, and the next one should not be due before it is done: no
//! interval is shorter than the longest of the last five saves took.

use std::{collections::VecDeque, time::Duration};

use crate::{facts::EarlierTerms, timing::Timing};

/// How many of the last saves predict the cost of the next one.
const REMEMBERED: usize = 5;

/// The cost of one checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveCost {
    /// The longest time for which it blocked training on any worker.
    pub stall: Duration,
    /// From the first slice's staging to the commit.
    pub duration: Duration,
}

/// The interval between checkpoints, and the values it is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The time between the start of one checkpoint and the start of the next.
    pub every: Duration,
    /// How long one blocks training; `None` before the first, and then `every` is the time to the first.
    pub cost: Option<Duration>,
    /// Mean time between failures, estimated.
    pub between_failures: Duration,
    /// Why the interval is not the cheapest one, if it is not.
    pub bound: Option<Bound>,
}

/// Why an interval is not the cheapest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A save takes longer than the cheapest interval.
    SaveTakes,
    /// [`Timing::min_interval`] or [`Timing::max_interval`] applies.
    Limit,
}

/// Estimates the cheapest interval from the saves and the failures of a run.
#[derive(Debug)]
pub(crate) struct IntervalEstimator {
    costs: VecDeque<SaveCost>,
    /// How long past generations have trained, the live one excluded.
    trained: Duration,
    /// Since when the live generation trains.
    training_since: Option<Duration>,
    /// Losses of all members, counted in fractions for single members.
    failures: f64,
}

impl IntervalEstimator {
    pub(crate) fn new(earlier: EarlierTerms) -> Self {
        Self {
            costs: VecDeque::new(),
            trained: earlier.trained,
            training_since: None,
            failures: f64::from(earlier.failures),
        }
    }

    /// A checkpoint was committed at this cost.
    pub(crate) fn saved(&mut self, cost: SaveCost) {
        if self.costs.len() == REMEMBERED {
            self.costs.pop_front();
        }
        self.costs.push_back(cost);
    }

    /// A generation has begun.
    pub(crate) fn training_began(&mut self, now: Duration) {
        self.training_since.get_or_insert(now);
    }

    /// No generation is left.
    pub(crate) fn training_paused(&mut self, now: Duration) {
        if let Some(since) = self.training_since.take() {
            self.trained += now.saturating_sub(since);
        }
    }

    /// One of `members` members was lost.
    pub(crate) fn lost_one_of(&mut self, members: usize) {
        self.failures += 1.0 / members.max(1) as f64;
    }

    /// The interval between checkpoints from now on.
    pub(crate) fn interval(&self, now: Duration, timing: &Timing) -> Interval {
        let trained =
            self.trained + self.training_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let between_failures = (timing.assumed_failure_interval + trained).div_f64(1.0 + self.failures);
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
        let (least, most) = (timing.min_interval, timing.max_interval);
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

    fn interval_after(stall: f64, duration: f64, trained: Duration, failures: u32) -> Interval {
        let mut estimator = IntervalEstimator::new(EarlierTerms { trained, failures });
        let seconds = Duration::from_secs_f64;
        estimator.saved(SaveCost { stall: seconds(stall), duration: seconds(duration) });
        estimator.interval(Duration::ZERO, &Timing::default())
    }

    #[test]
    fn the_interval_is_the_root_of_twice_the_cost_and_the_time_between_failures() {
        // 12 h by the prior and 31.6 h of training with three failures: one in 10.9 h.
        let interval = interval_after(0.8, 5.0, HOUR * 158 / 5, 3);
        assert_eq!(interval.between_failures, HOUR * 109 / 10);
        assert!((interval.every.as_secs_f64() - 250.57).abs() < 0.01, "{:?}", interval.every);
        assert_eq!((interval.cost, interval.bound), (Some(Duration::from_millis(800)), None));
    }

    #[test]
    fn intervals_near_the_chosen_one_cost_more() {
        for (stall, failures) in [(0.1, 0), (0.8, 3), (2.0, 40)] {
            let interval = interval_after(stall, 1.0, HOUR * 30, failures);
            let lost = |every: f64| stall / every + every / (2.0 * interval.between_failures.as_secs_f64());
            let every = interval.every.as_secs_f64();
            assert!(lost(every) < lost(every * 1.05) && lost(every) < lost(every * 0.95), "{interval:?}");
        }
    }

    #[test]
    fn it_is_never_shorter_than_a_save_and_keeps_its_limits() {
        let slow = interval_after(0.1, 900.0, HOUR, 3);
        assert_eq!((slow.every, slow.bound), (Duration::from_secs(900), Some(Bound::SaveTakes)));
        let free = interval_after(0.0, 0.1, HOUR, 0);
        assert_eq!((free.every, free.bound), (Timing::default().min_interval, Some(Bound::Limit)));
        let steady = interval_after(60.0, 70.0, HOUR * 100_000, 0);
        assert_eq!((steady.every, steady.bound), (Timing::default().max_interval, Some(Bound::Limit)));
        // Failures so frequent that most of the time goes into checkpoints: Daly's other case.
        let hopeless = interval_after(1000.0, 1000.0, HOUR, 60);
        assert!(hopeless.every >= hopeless.between_failures, "{hopeless:?}");
    }

    #[test]
    fn before_the_first_save_the_cost_is_unknown() {
        let interval = IntervalEstimator::new(EarlierTerms::default()).interval(HOUR, &Timing::default());
        assert_eq!((interval.every, interval.cost), (Timing::default().first_save, None));
    }

    #[test]
    fn only_training_time_and_the_last_saves_count() {
        let timing = Timing::default();
        let mut estimator = IntervalEstimator::new(EarlierTerms::default());
        estimator.training_began(HOUR);
        estimator.training_began(HOUR * 2);
        assert_eq!(
            estimator.interval(HOUR * 3, &timing).between_failures,
            timing.assumed_failure_interval + HOUR * 2
        );
        estimator.training_paused(HOUR * 4);
        for _ in 0..4 {
            estimator.lost_one_of(4);
        }
        assert_eq!(
            estimator.interval(HOUR * 90, &timing).between_failures,
            (timing.assumed_failure_interval + HOUR * 3) / 2
        );
        for stall in [90, 2, 2, 3, 3, 5] {
            let stall = Duration::from_secs(stall);
            estimator.saved(SaveCost { stall, duration: stall });
        }
        assert_eq!(estimator.interval(HOUR * 90, &timing).cost, Some(Duration::from_secs(3)));
    }
}
