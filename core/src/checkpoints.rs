//! Checkpoints from the first slice to the commit.
//!
//! Each member of a generation saves a slice of its own and says so; when all have, the checkpoint is committed. One
//! that cannot become whole, because a member was lost or its store refused, is dropped aloud and another is asked for:
//! it never stands in the way of the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use whimbrel_plan::WorkerId;

use crate::{
    command::{Command, Notice},
    facts::{CheckpointEvery, Start},
    interval::{Interval, SaveCost},
    run::{Run, WorkerState},
    view::SaveFailure,
};

/// An interval is news when it is longer or shorter than the last one told of by this factor.
const NOTICEABLE: (u32, u32) = (5, 4);

/// So many generations back, slices may still arrive.
const REMEMBERED: usize = 8;

/// A checkpoint on its way: the generation that staged it and the steps applied to it.
type Key = (u64, u64);

/// What a checkpoint lacks.
#[derive(Debug)]
struct Awaited {
    /// When it was first heard of.
    since: Duration,
    /// Members whose slice is still to come.
    from: BTreeSet<WorkerId>,
}

/// The checkpoints of a run that are committed or on their way.
#[derive(Debug)]
pub(crate) struct Saves {
    /// Steps applied in the newest committed checkpoint.
    pub(crate) committed: Option<u64>,
    /// Slices of these are still to come.
    pending: BTreeMap<Key, Awaited>,
    /// All slices are there, and the commit is under way.
    committing: BTreeSet<Key>,
    /// Given up: slices that still come are ignored.
    dropped: BTreeSet<Key>,
    /// Members of the last generations, each with the last step of which a slice may come from it.
    members: BTreeMap<u64, BTreeMap<WorkerId, u64>>,
    /// When the last one began.
    begun: Duration,
    /// The step of one that failed, and when it is to be made up for, unless a later one is on its way by then.
    again: Option<(u64, Duration)>,
    /// How often in a row the store refused the checkpoint that the run's end waits for.
    pub(crate) refusals: u32,
    /// Why the last one failed, unless one was committed since.
    pub(crate) failure: Option<SaveFailure>,
}

impl Saves {
    pub(crate) fn new(start: &Start, now: Duration) -> Self {
        Self {
            committed: match start {
                Start::Initial => None,
                Start::Checkpoint { step, .. } => Some(*step),
            },
            pending: BTreeMap::new(),
            committing: BTreeSet::new(),
            dropped: BTreeSet::new(),
            members: BTreeMap::new(),
            begun: now,
            again: None,
            refusals: 0,
            failure: None,
        }
    }

    pub(crate) fn generation_formed(&mut self, number: u64, members: &[WorkerId]) {
        self.members.insert(number, members.iter().map(|&member| (member, u64::MAX)).collect());
        while self.members.len() > REMEMBERED {
            self.members.pop_first();
        }
        let oldest = self.members.keys().next().copied().unwrap_or(0);
        self.dropped.retain(|&(generation, _)| generation >= oldest);
    }

    /// Checkpoints that lack a slice of that worker.
    fn awaited_from(&self, worker: WorkerId) -> Vec<Key> {
        let lacks = |awaited: &Awaited| awaited.from.contains(&worker);
        self.pending.iter().filter(|(_, awaited)| lacks(awaited)).map(|(&key, _)| key).collect()
    }

    /// Whether any checkpoint is on its way.
    pub(crate) fn under_way(&self) -> bool {
        !self.pending.is_empty() || self.is_committing()
    }

    /// Whether a commit has yet to be answered.
    pub(crate) fn is_committing(&self) -> bool {
        !self.committing.is_empty()
    }

    /// Whether a checkpoint at least as far is committed or being committed.
    fn is_superseded(&self, step: u64) -> bool {
        self.committed.is_some_and(|committed| committed >= step)
            || self.committing.iter().any(|&(_, committing)| committing >= step)
    }
}

impl Run {
    /// Slices of this checkpoint are on their way, though none may have come yet.
    pub(crate) fn expect_save(&mut self, now: Duration, key: Key, out: &mut Vec<Command>) {
        let saves = &mut self.saves;
        let known = saves.pending.contains_key(&key)
            || saves.committing.contains(&key)
            || saves.dropped.contains(&key);
        if known {
            return;
        }
        let Some(members) = saves.members.get(&key.0) else { return };
        if let Some(live) = &mut self.live
            && live.number == key.0
        {
            live.checkpoint_asked = false;
        }
        saves.begun = now;
        if saves.again.is_some_and(|(failed, _)| failed <= key.1) {
            saves.again = None;
        }
        if saves.is_superseded(key.1) {
            saves.dropped.insert(key);
            out.push(Command::Discard { run: self.id.clone(), generation: key.0, step: key.1 });
            return;
        }
        saves.pending.insert(key, Awaited { since: now, from: members.keys().copied().collect() });
        // A member may have been lost, or have left without that step, before anybody's slice came.
        let gone = |worker: &WorkerId| {
            self.workers.get(worker).is_none_or(|worker| worker.state == WorkerState::Lost)
        };
        let absent = members.iter().find(|&(id, &last)| last < key.1 || gone(id)).map(|(&id, _)| id);
        if let Some(absent) = absent {
            self.drop_save(now, key, &format!("worker {absent} was lost before its slice was saved"), out);
        }
    }

    pub(crate) fn slice_saved(
        &mut self,
        now: Duration,
        worker: WorkerId,
        generation: u64,
        step: u64,
        out: &mut Vec<Command>,
    ) {
        let key = (generation, step);
        self.expect_save(now, key, out);
        let Some(awaited) = self.saves.pending.get_mut(&key) else { return };
        awaited.from.remove(&worker);
        if awaited.from.is_empty() {
            self.saves.pending.remove(&key);
            let run = self.id.clone();
            // The newest one must not be followed by an older one.
            if self.saves.is_superseded(step) {
                self.saves.dropped.insert(key);
                out.push(Command::Discard { run, generation, step });
            } else {
                self.saves.committing.insert(key);
                out.push(Command::Commit { run, generation, step });
            }
        }
    }

    pub(crate) fn slice_failed(
        &mut self,
        now: Duration,
        worker: WorkerId,
        generation: u64,
        step: u64,
        reason: &str,
        out: &mut Vec<Command>,
    ) {
        let key = (generation, step);
        self.expect_save(now, key, out);
        if self.saves.pending.contains_key(&key) {
            self.count_refusal(step);
            self.drop_save(now, key, &format!("worker {worker}: {reason}"), out);
        }
    }

    pub(crate) fn committed(&mut self, step: u64, manifest: String, cost: SaveCost) {
        self.experience.saved(cost);
        self.saves.committing.retain(|&(_, committing)| committing != step);
        if self.saves.committed.is_none_or(|committed| committed < step) {
            self.saves.committed = Some(step);
            self.start = Some(Start::Checkpoint { step, manifest });
        }
        self.saves.refusals = 0;
        self.saves.failure = None;
    }

    pub(crate) fn commit_failed(&mut self, now: Duration, step: u64, reason: &str, out: &mut Vec<Command>) {
        let failed: Vec<Key> = self.saves.committing.iter().filter(|key| key.1 == step).copied().collect();
        for key in failed {
            self.count_refusal(step);
            self.drop_save(now, key, reason, out);
        }
    }

    /// A refusal on the way is made up for later; only at the end there is a limit to it.
    fn count_refusal(&mut self, step: u64) {
        if step == self.facts.steps || self.is_stopping() {
            self.saves.refusals += 1;
        }
    }

    /// A member has left its generation with the state after `step` steps: later ones it has not staged.
    pub(crate) fn member_left(
        &mut self,
        now: Duration,
        worker: WorkerId,
        generation: u64,
        step: Option<u64>,
        out: &mut Vec<Command>,
    ) {
        let last = step.unwrap_or(0);
        if let Some(members) = self.saves.members.get_mut(&generation) {
            members.insert(worker, last);
        }
        let hopeless = |key: &Key| key.0 == generation && key.1 > last;
        for key in self.saves.awaited_from(worker).into_iter().filter(hopeless) {
            self.drop_save(now, key, &format!("worker {worker} left its generation before that step"), out);
        }
    }

    /// A worker is gone: what needs a slice of it can never be whole.
    pub(crate) fn abandon_saves_of(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Command>) {
        for key in self.saves.awaited_from(worker) {
            self.drop_save(now, key, &format!("worker {worker} was lost before its slice was saved"), out);
        }
    }

    /// A worker whose slice does not come in time is lost, however alive it seems to be.
    pub(crate) fn lose_slow_savers(&mut self, now: Duration, out: &mut Vec<Command>) {
        let patience = self.timing.save;
        let late = |awaited: &&Awaited| now.saturating_sub(awaited.since) > patience;
        let slow: Vec<WorkerId> = self
            .saves
            .pending
            .values()
            .filter(late)
            .flat_map(|awaited| awaited.from.iter().copied())
            .collect();
        for worker in slow {
            let reason =
                format!("its slice of a checkpoint was not saved within {} s", patience.as_secs_f32());
            self.lose(now, worker, &reason, out);
        }
    }

    fn drop_save(&mut self, now: Duration, key: Key, reason: &str, out: &mut Vec<Command>) {
        let (generation, step) = key;
        self.saves.pending.remove(&key);
        self.saves.committing.remove(&key);
        self.saves.dropped.insert(key);
        let later = self.saves.pending.keys().any(|&(_, pending)| pending > step);
        if !later && !self.saves.is_superseded(step) {
            self.saves.again = Some((step, now + self.timing.save_again));
        }
        self.saves.failure = Some(SaveFailure { step, reason: reason.to_owned() });
        out.push(Command::Discard { run: self.id.clone(), generation, step });
        self.warn(format!("the checkpoint of step {step} could not be saved: {reason}"), Vec::new(), out);
    }

    /// The interval between checkpoints, where that is left to the core.
    pub(crate) fn interval(&self, now: Duration) -> Option<Interval> {
        (self.facts.checkpoint == CheckpointEvery::Auto).then(|| self.experience.interval(now, &self.timing))
    }

    /// Says how often checkpoints are taken, once it is noticeably not what was said before.
    pub(crate) fn announce_interval(&mut self, now: Duration, out: &mut Vec<Command>) {
        let Some(interval) = self.interval(now) else { return };
        let noticeable = self.interval_told.is_none_or(|told| {
            let (less, more) = (told.every.min(interval.every), told.every.max(interval.every));
            told.cost.is_none() || more > less * NOTICEABLE.0 / NOTICEABLE.1
        });
        if noticeable {
            self.interval_told = Some(interval);
            self.announce(Notice::Interval(interval), out);
        }
    }

    /// Asks the members for a checkpoint when one is due by time, or is to make up for one that failed.
    pub(crate) fn ask_for_checkpoint(&mut self, now: Duration, out: &mut Vec<Command>) {
        let due = match self.facts.checkpoint {
            CheckpointEvery::Time(every) => now.saturating_sub(self.saves.begun) >= every,
            CheckpointEvery::Auto => {
                now.saturating_sub(self.saves.begun) >= self.experience.interval(now, &self.timing).every
            }
            CheckpointEvery::Steps(_) => false,
        };
        let due = due || self.saves.again.is_some_and(|(_, again)| again <= now);
        let under_way = self.saves.under_way();
        let committed = self.saves.committed;
        let Some(live) = &mut self.live else { return };
        // From the last step until all members have completed it there is no boundary left on which they agree.
        let may = if live.completed.is_empty() && self.told < self.facts.steps {
            !live.halt_asked
        } else {
            live.is_complete() && committed != Some(self.facts.steps)
        };
        if due && may && !under_way && !live.is_broken() && !live.checkpoint_asked {
            live.checkpoint_asked = true;
            for &worker in &live.present {
                let (run, generation) = (self.id.clone(), live.number);
                out.push(Command::Ask { run, worker, generation, checkpoint: true, halt: false });
            }
            if live.is_complete() {
                // Members that have applied the last step stage the same checkpoint once more.
                let key = (live.number, self.facts.steps);
                self.saves.dropped.remove(&key);
                self.expect_save(now, key, out);
            }
        }
    }
}
