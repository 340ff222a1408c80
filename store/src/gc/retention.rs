//! Retention: which checkpoints are kept.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use whimbrel_state::Hash;

use crate::log::{CheckpointInfo, RunLog};

/// Which checkpoints and packs to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest complete checkpoints to keep; at least one.
    pub last: u32,
    /// Which to keep besides these, for the lifetime of the run.
    pub every: Option<KeepEvery>,
    /// How long a pack that no checkpoint names stays, since it may belong to a save in flight.
    pub grace: Duration,
    /// Packs of saves in flight, as far as they are known. They stay whatever their age.
    pub in_flight: Vec<Hash>,
}

/// Divides the run into equal intervals. The first complete checkpoint in each interval is kept; the first interval,
/// which starts with the run, keeps none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepEvery {
    /// Intervals of so many steps. Nothing is kept for 0.
    Steps(u64),
    /// Intervals of the time of the commits, from the submission of the run. Nothing is kept for zero.
    Time(Duration),
}

impl Default for Retention {
    fn default() -> Self {
        Self { last: 3, every: None, grace: Duration::from_secs(3600), in_flight: Vec::new() }
    }
}

impl KeepEvery {
    /// The number of the interval that a checkpoint is in, from 0.
    fn interval_of(self, checkpoint: &CheckpointInfo, submitted: DateTime<Utc>) -> u64 {
        match self {
            Self::Steps(steps) => checkpoint.step.checked_div(steps).unwrap_or(0),
            Self::Time(time) => {
                let age = (checkpoint.time - submitted).to_std().unwrap_or_default();
                let interval = age.as_nanos().checked_div(time.as_nanos());
                interval.and_then(|interval| u64::try_from(interval).ok()).unwrap_or(0)
            }
        }
    }
}

impl Retention {
    /// The checkpoints that are kept if all usable ones are complete; newest last.
    pub fn kept<'a>(&self, run_log: &'a RunLog) -> Vec<&'a CheckpointInfo> {
        let checkpoints: Vec<_> = run_log.usable_checkpoints().collect();
        let newest = checkpoints.len().saturating_sub(self.last.max(1) as usize);
        let mut intervals = HashSet::new();
        let kept = checkpoints.into_iter().enumerate().filter(|(index, checkpoint)| {
            let first =
                self.interval_of(checkpoint, run_log).is_some_and(|interval| intervals.insert(interval));
            first || *index >= newest
        });
        kept.map(|(_, checkpoint)| checkpoint).collect()
    }

    /// The interval of [`every`](Self::every) that this checkpoint would be kept for if it is the first in it.
    pub(super) fn interval_of(&self, checkpoint: &CheckpointInfo, run_log: &RunLog) -> Option<u64> {
        let interval = self.every?.interval_of(checkpoint, run_log.submitted());
        (interval > 0).then_some(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Entry, HostedBy, Origin, Record};

    fn entry(number: u64, time: i64, record: Record) -> Entry {
        let time = DateTime::from_timestamp(time, 0).unwrap();
        Entry { format: 1, number, epoch: u64::from(number > 0), writer: number.to_string(), time, record }
    }

    /// A run with checkpoints of these steps, a second a step.
    fn run_log(steps: &[u64]) -> RunLog {
        let submitted = Record::Submitted { spec: String::new(), hosted_by: HostedBy::Embedded };
        let term = Record::Term { coordinator: "c".into(), replica_of: None };
        let checkpoint = |&step: &u64| Record::Checkpoint {
            step,
            manifest: step.to_string(),
            bytes: 1,
            state: None,
            origin: None,
        };
        let records = [submitted, term].into_iter().chain(steps.iter().map(checkpoint));
        let time = |number: usize| number.checked_sub(2).map_or(0, |at| steps[at] as i64);
        let entries =
            records.enumerate().map(|(number, record)| entry(number as u64, time(number), record)).collect();
        RunLog::of(entries).unwrap()
    }

    fn kept(last: u32, every: KeepEvery, steps: &[u64]) -> Vec<u64> {
        let retention = Retention { last, every: Some(every), ..Retention::default() };
        retention.kept(&run_log(steps)).iter().map(|checkpoint| checkpoint.step).collect()
    }

    #[test]
    fn the_newest_and_the_first_of_each_interval_are_kept() {
        let steps = [30, 90, 100, 150, 190, 230, 260, 420, 430, 440];
        assert_eq!(kept(2, KeepEvery::Steps(100), &steps), [100, 230, 420, 430, 440]);
        assert_eq!(kept(2, KeepEvery::Time(Duration::from_secs(100)), &steps), [100, 230, 420, 430, 440]);
        assert_eq!(kept(0, KeepEvery::Steps(0), &steps), [440]);
        assert_eq!(kept(1, KeepEvery::Time(Duration::ZERO), &steps), [440]);
        assert_eq!(kept(1, KeepEvery::Time(Duration::MAX), &steps), [440]);
    }

    #[test]
    fn a_checkpoint_kept_for_its_interval_stays_kept_as_the_run_goes_on() {
        for every in [KeepEvery::Steps(70), KeepEvery::Time(Duration::from_secs(70))] {
            let mut left: Vec<u64> = Vec::new();
            for step in (0..100).map(|at| at * 25) {
                left.push(step);
                left = kept(2, every, &left);
            }
            let all: Vec<u64> = (0..100).map(|at| at * 25).collect();
            assert_eq!(left, kept(2, every, &all), "{every:?}");
        }
    }

    #[test]
    fn a_copy_keeps_checkpoints_by_the_time_of_the_original_commit() {
        let mut late = run_log(&[10, 110, 120]).entries().to_vec();
        for entry in &mut late[2..] {
            if let Record::Checkpoint { origin, .. } = &mut entry.record {
                *origin = Some(Origin { epoch: 1, entry: entry.number, time: entry.time });
            }
            entry.time = DateTime::from_timestamp(9999, 0).unwrap();
        }
        let retention = Retention {
            last: 1,
            every: Some(KeepEvery::Time(Duration::from_secs(100))),
            ..Retention::default()
        };
        let late = RunLog::of(late).unwrap();
        let kept = retention.kept(&late);
        assert_eq!(kept.iter().map(|checkpoint| checkpoint.step).collect::<Vec<_>>(), [110, 120]);
    }
}
