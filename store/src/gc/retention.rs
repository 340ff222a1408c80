//! Which checkpoints are kept.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use whimbrel_state::Hash;

use crate::log::run_log::{CheckpointInfo, RunLog};

/// What to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many whole checkpoints to keep, the newest ones; one is kept at least.
    pub last: u32,
    /// Which to keep besides, for as long as the run is there.
    pub every: Option<KeepEvery>,
    /// How long a pack that no checkpoint names stays, since it may belong to a save under way.
    pub grace: Duration,
    /// Packs of saves under way, as far as they are known: they stay whatever their age.
    pub in_flight: Vec<Hash>,
}

/// A measure along the run, of which each length keeps a checkpoint: the first at or after its start, or the first
/// whole one. The first length, which starts with the run, keeps none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepEvery {
    /// By steps: one for each multiple of so many. None for 0.
    Steps(u64),
    /// By the time of the commits, counted from the submission of the run. None for zero.
    Time(Duration),
}

impl Default for Retention {
    fn default() -> Self {
        Self { last: 3, every: None, grace: Duration::from_secs(3600), in_flight: Vec::new() }
    }
}

impl KeepEvery {
    /// Which length of the measure a checkpoint falls into, the first being 0.
    fn length_of(self, checkpoint: &CheckpointInfo, submitted: Timestamp) -> u64 {
        match self {
            Self::Steps(steps) => checkpoint.step.checked_div(steps).unwrap_or(0),
            Self::Time(time) => {
                let age = checkpoint.time.duration_since(submitted);
                let length = age.as_nanos().checked_div(i128::try_from(time.as_nanos()).unwrap_or(i128::MAX));
                length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
            }
        }
    }
}

impl Retention {
    /// The checkpoints that are kept, newest last, if all that can be used are whole.
    pub fn kept(&self, run_log: &RunLog) -> Vec<CheckpointInfo> {
        let checkpoints = run_log.checkpoints();
        let newest = checkpoints.len().saturating_sub(self.last.max(1) as usize);
        let mut lengths = HashSet::new();
        let kept = checkpoints.into_iter().enumerate().filter(|(index, checkpoint)| {
            let first = self.claims(checkpoint, run_log).is_some_and(|length| lengths.insert(length));
            first || *index >= newest
        });
        kept.map(|(_, checkpoint)| checkpoint).collect()
    }

    /// The length of [`every`](Self::every) that this checkpoint would be kept for, were it the first.
    pub(crate) fn claims(&self, checkpoint: &CheckpointInfo, run_log: &RunLog) -> Option<u64> {
        let length = self.every?.length_of(checkpoint, run_log.submitted());
        (length > 0).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::entry::{Entry, Mode, Origin, Record};

    fn entry(number: u64, time: i64, record: Record) -> Entry {
        let time = Timestamp::from_second(time).unwrap();
        Entry { format: 1, number, epoch: u64::from(number > 0), writer: number.to_string(), time, record }
    }

    /// A run with checkpoints of these steps, a second a step.
    fn run_log(steps: &[u64]) -> RunLog {
        let submitted = Record::Submitted { spec: String::new(), submitter: Mode::Embedded };
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
    fn the_newest_and_the_first_of_each_length_are_kept() {
        let steps = [30, 90, 100, 150, 190, 230, 260, 420, 430, 440];
        assert_eq!(kept(2, KeepEvery::Steps(100), &steps), [100, 230, 420, 430, 440]);
        assert_eq!(kept(2, KeepEvery::Time(Duration::from_secs(100)), &steps), [100, 230, 420, 430, 440]);
        assert_eq!(kept(0, KeepEvery::Steps(0), &steps), [440]);
        assert_eq!(kept(1, KeepEvery::Time(Duration::ZERO), &steps), [440]);
        assert_eq!(kept(1, KeepEvery::Time(Duration::MAX), &steps), [440]);
    }

    #[test]
    fn what_is_kept_stays_kept_as_the_run_goes_on() {
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
    fn a_copy_keeps_by_the_time_of_the_original() {
        let mut late = run_log(&[10, 110, 120]).entries().to_vec();
        for entry in &mut late[2..] {
            if let Record::Checkpoint { origin, .. } = &mut entry.record {
                *origin = Some(Origin { epoch: 1, entry: entry.number, time: entry.time });
            }
            entry.time = Timestamp::from_second(9999).unwrap();
        }
        let retention = Retention {
            last: 1,
            every: Some(KeepEvery::Time(Duration::from_secs(100))),
            ..Retention::default()
        };
        let kept = retention.kept(&RunLog::of(late).unwrap());
        assert_eq!(kept.iter().map(|checkpoint| checkpoint.step).collect::<Vec<_>>(), [110, 120]);
    }
}
