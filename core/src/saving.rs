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
    command::Command,
    facts::{CheckpointEvery, Start},
    run::{Run, WorkerState},
};

/// So many generations back, slices may still arrive.
const REMEMBERED: usize = 8;

/// A checkpoint on its way: the generation that staged it and the steps applied to it.
type Key = (u64, u64);

/// The checkpoints of a run that are committed or on their way.
#[derive(Debug)]
pub(crate) struct Saves {
    /// Steps applied in the newest committed checkpoint.
    pub(crate) committed: Option<u64>,
    /// Members whose slice is still to come.
    pending: BTreeMap<Key, BTreeSet<WorkerId>>,
    /// All slices are there, and the commit is under way.
    committing: BTreeSet<Key>,
    /// Given up: slices that still come are ignored.
    dropped: BTreeSet<Key>,
    /// Members of the last generations.
    members: BTreeMap<u64, Vec<WorkerId>>,
    /// When the last one began.
    begun: Duration,
    /// When one that failed is to be made up for.
    again: Option<Duration>,
    /// Failures since the last commit, and the last one's cause.
    pub(crate) failures: u32,
    pub(crate) failure: Option<String>,
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
            failures: 0,
            failure: None,
        }
    }

    pub(crate) fn generation_formed(&mut self, number: u64, members: Vec<WorkerId>) {
        self.members.insert(number, members);
        while self.members.len() > REMEMBERED {
            self.members.pop_first();
        }
        let oldest = self.members.keys().next().copied().unwrap_or(0);
        self.dropped.retain(|&(generation, _)| generation >= oldest);
    }

    /// Whether any checkpoint is on its way.
    pub(crate) fn under_way(&self) -> bool {
        !self.pending.is_empty() || !self.committing.is_empty()
    }
}

impl Run {
    /// Slices of this checkpoint are on their way, though none may have come yet.
    pub(crate) fn expect_save(&mut self, now: Duration, key: Key, out: &mut Vec<Command>) {
        let saves = &mut self.saves;
        let known = saves.pending.contains_key(&key)
            || saves.committing.contains(&key)
            || saves.dropped.contains(&key);
        if known || saves.committed.is_some_and(|committed| committed >= key.1) {
            return;
        }
        let Some(members) = saves.members.get(&key.0) else { return };
        saves.begun = now;
        saves.again = None;
        saves.pending.insert(key, members.iter().copied().collect());
        if let Some(live) = &mut self.live
            && live.number == key.0
        {
            live.checkpoint_asked = false;
        }
        // A member may have been lost before anybody's slice came.
        let gone = |worker: &WorkerId| {
            self.workers.get(worker).is_none_or(|worker| worker.state == WorkerState::Lost)
        };
        let lost =
            self.saves.pending.get(&key).and_then(|members| members.iter().find(|id| gone(id)).copied());
        if let Some(lost) = lost {
            self.drop_save(now, key, &format!("worker {lost} was lost before its slice was saved"), out);
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
        let Some(missing) = self.saves.pending.get_mut(&key) else { return };
        missing.remove(&worker);
        if missing.is_empty() {
            self.saves.pending.remove(&key);
            self.saves.committing.insert(key);
            out.push(Command::Commit { run: self.id.clone(), generation, step });
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
            self.drop_save(now, key, &format!("worker {worker}: {reason}"), out);
        }
    }

    pub(crate) fn committed(&mut self, _now: Duration, step: u64, manifest: String) {
        self.saves.committing.retain(|&(_, committing)| committing != step);
        if self.saves.committed.is_none_or(|committed| committed < step) {
            self.saves.committed = Some(step);
            self.start = Some(Start::Checkpoint { step, manifest });
        }
        self.saves.failures = 0;
        self.saves.failure = None;
    }

    pub(crate) fn commit_failed(&mut self, now: Duration, step: u64, reason: &str, out: &mut Vec<Command>) {
        let failed: Vec<Key> = self.saves.committing.iter().filter(|key| key.1 == step).copied().collect();
        for key in failed {
            self.drop_save(now, key, reason, out);
        }
    }

    /// A worker is gone: what needs a slice of it can never be whole.
    pub(crate) fn abandon_saves_of(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Command>) {
        let needs = |members: &BTreeSet<WorkerId>| members.contains(&worker);
        let hopeless: Vec<Key> =
            self.saves.pending.iter().filter(|(_, members)| needs(members)).map(|(&key, _)| key).collect();
        for key in hopeless {
            self.drop_save(now, key, &format!("worker {worker} was lost before its slice was saved"), out);
        }
    }

    fn drop_save(&mut self, now: Duration, key: Key, reason: &str, out: &mut Vec<Command>) {
        let (generation, step) = key;
        self.saves.pending.remove(&key);
        self.saves.committing.remove(&key);
        self.saves.dropped.insert(key);
        self.saves.again = Some(now + self.timing.save_again);
        self.saves.failures += 1;
        self.saves.failure = Some(reason.to_owned());
        out.push(Command::Discard { run: self.id.clone(), generation, step });
        self.warn(format!("the checkpoint of step {step} could not be saved: {reason}"), Vec::new(), out);
    }

    /// Asks the members for a checkpoint when one is due by time, or is to make up for one that failed.
    pub(crate) fn ask_for_checkpoint(&mut self, now: Duration, out: &mut Vec<Command>) {
        let due = match self.facts.checkpoint {
            CheckpointEvery::Time(every) => now.saturating_sub(self.saves.begun) >= every,
            CheckpointEvery::Steps(_) => false,
        };
        let due = due || self.saves.again.is_some_and(|again| again <= now);
        let under_way = self.saves.under_way();
        let committed = self.saves.committed;
        let Some(live) = &mut self.live else { return };
        // Between the first and the last member's completion the members no longer agree on boundaries.
        let may = live.completed.is_empty() || (live.is_complete() && committed != Some(self.facts.steps));
        if due
            && may
            && !under_way
            && !live.is_broken()
            && live.halt_asked.is_none()
            && !live.checkpoint_asked
        {
            live.checkpoint_asked = true;
            for &worker in &live.present {
                let (run, generation) = (self.id.clone(), live.number);
                out.push(Command::Ask { run, worker, generation, checkpoint: true, halt: false });
            }
        }
    }
}
