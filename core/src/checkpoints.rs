//! The checkpoints of a run, from the first slice to the commit, and the one that the run starts from.
//!
//! Each member of a generation saves its own slice and reports it; when all have, the checkpoint is committed. A
//! checkpoint that cannot become whole, because a member was lost or its store refused, is dropped with a warning, and
//! the core asks for another one: it never blocks the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use whimbrel_plan::WorkerId;

use crate::{
    command::{Command, Notice},
    facts::{CheckpointEvery, EarlierTerms, Start},
    interval::{Interval, IntervalEstimator, SaveCost},
    machine::{Askable, Context, Effects, RestoreFailure},
    phase::Phase,
    view::SaveFailure,
};

/// A new interval is announced when it is longer or shorter than the last announced one by this factor.
const NOTICEABLE: (u32, u32) = (5, 4);

/// Slices may still arrive from this many generations back.
const REMEMBERED: usize = 8;

/// A checkpoint: the generation that staged it and the steps applied to it.
type Key = (u64, u64);

/// The checkpoints of a run that are committed or under way.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// The newest committed checkpoint, if there is one: where the state is when no worker holds it.
    newest: Start,
    /// `newest` was found damaged, and the driver looks for the checkpoint to use instead.
    quarantining: bool,
    /// Failures in a row to read a checkpoint because the store was out of reach.
    restore_failures: u32,
    /// Slices of these have yet to arrive.
    pending: BTreeMap<Key, Awaited>,
    /// All slices are there, and the commit is under way.
    committing: BTreeSet<Key>,
    /// Given up: slices that still arrive are ignored.
    dropped: BTreeSet<Key>,
    /// The members of the last generations. Slices may come from each up to a step; from a lost one none may.
    members: BTreeMap<u64, BTreeMap<WorkerId, Option<u64>>>,
    /// The generation that was asked for a checkpoint of which there is no sign yet.
    asked: Option<u64>,
    /// When the last checkpoint began.
    begun: Duration,
    /// The step of a checkpoint that failed, and when another one is due to make up for it.
    retry: Option<(u64, Duration)>,
    /// How often in a row the store refused the checkpoint that the run's end waits for.
    refusals: u32,
    /// The run's last step, once a member has applied it.
    last_step: Option<u64>,
    /// Why the last checkpoint failed, unless one was committed since.
    failure: Option<SaveFailure>,
    estimator: IntervalEstimator,
    /// The interval last announced.
    announced: Option<Interval>,
}

/// What a checkpoint lacks.
#[derive(Debug)]
struct Awaited {
    /// When the core first heard of the checkpoint.
    since: Duration,
    /// Members whose slice has yet to arrive.
    from: BTreeSet<WorkerId>,
}

/// Reports of workers and of the driver.
impl Checkpoints {
    pub(crate) fn new(start: Start, earlier: EarlierTerms, now: Duration) -> Self {
        Self {
            newest: start,
            quarantining: false,
            restore_failures: 0,
            pending: BTreeMap::new(),
            committing: BTreeSet::new(),
            dropped: BTreeSet::new(),
            members: BTreeMap::new(),
            asked: None,
            begun: now,
            retry: None,
            refusals: 0,
            last_step: None,
            failure: None,
            estimator: IntervalEstimator::new(earlier),
            announced: None,
        }
    }

    pub(crate) fn slice_saved(
        &mut self,
        cx: &Context,
        worker: WorkerId,
        generation: u64,
        step: u64,
    ) -> Effects {
        let key = (generation, step);
        let mut effects = self.expect(cx, key);
        let Some(awaited) = self.pending.get_mut(&key) else { return effects };
        awaited.from.remove(&worker);
        if awaited.from.is_empty() {
            self.pending.remove(&key);
            let run = cx.run.clone();
            // An older checkpoint must not be committed after a newer one.
            if self.is_superseded(step) {
                self.dropped.insert(key);
                effects.command(Command::Discard { run, generation, step });
            } else {
                self.committing.insert(key);
                effects.command(Command::Commit { run, generation, step });
            }
        }
        effects
    }

    /// `stopping`: the run is stopping, and waits for this checkpoint.
    pub(crate) fn slice_failed(
        &mut self,
        cx: &Context,
        key: Key,
        worker: WorkerId,
        reason: &str,
        stopping: bool,
    ) -> Effects {
        let mut effects = self.expect(cx, key);
        if self.pending.contains_key(&key) {
            self.count_refusal(cx, key.1, stopping);
            self.drop_save(cx, key, &format!("worker {worker}: {reason}"), &mut effects);
        }
        effects
    }

    pub(crate) fn committed(&mut self, step: u64, manifest: String, cost: SaveCost) {
        self.estimator.saved(cost);
        self.committing.retain(|&(_, committing)| committing != step);
        if self.newest_step().is_none_or(|newest| newest < step) {
            self.newest = Start::Checkpoint { step, manifest };
            self.quarantining = false;
        }
        self.refusals = 0;
        self.failure = None;
    }

    /// `stopping`: the run is stopping, and waits for this checkpoint.
    pub(crate) fn commit_failed(&mut self, cx: &Context, step: u64, reason: &str, stopping: bool) -> Effects {
        let mut effects = Effects::new();
        let failed: Vec<Key> = self.committing.iter().filter(|key| key.1 == step).copied().collect();
        for key in failed {
            self.count_refusal(cx, step, stopping);
            self.drop_save(cx, key, reason, &mut effects);
        }
        effects
    }

    /// A refusal during training is made up for later; the checkpoint that the end waits for has a limit.
    fn count_refusal(&mut self, cx: &Context, step: u64, stopping: bool) {
        if step == self.last_step.unwrap_or(cx.facts.steps) || stopping {
            self.refusals += 1;
        }
    }

    /// A generation could not read the checkpoint that it starts from.
    pub(crate) fn restore_failed(&mut self, cx: &Context, failure: RestoreFailure) -> Effects {
        let mut effects = Effects::new();
        let RestoreFailure { manifest, damaged, reason } = failure;
        if damaged {
            let text = format!("checkpoint {manifest} was found damaged: {reason}");
            effects.warn(cx, text, Vec::new());
            self.quarantining = true;
            effects.command(Command::Quarantine { run: cx.run.clone(), manifest, reason });
            return effects;
        }
        self.restore_failures += 1;
        let text = format!("checkpoint {manifest} could not be read: {reason}");
        if self.restore_failures < cx.facts.max_failures {
            effects.warn(cx, format!("{text}; trying again"), Vec::new());
        } else {
            effects.fail(format!("{text}, {} times in a row", self.restore_failures), Vec::new());
        }
        effects
    }

    pub(crate) fn quarantined(&mut self, start: Start) {
        self.newest = start;
        self.quarantining = false;
    }
}

/// What happens in generations.
impl Checkpoints {
    /// A generation begins to train.
    pub(crate) fn generation_formed(&mut self, now: Duration, number: u64, members: &[WorkerId]) {
        self.members.insert(number, members.iter().map(|&member| (member, Some(u64::MAX))).collect());
        while self.members.len() > REMEMBERED {
            self.members.pop_first();
        }
        let oldest = self.members.keys().next().copied().unwrap_or(0);
        self.dropped.retain(|&(generation, _)| generation >= oldest);
        self.estimator.training_began(now);
    }

    /// No generation is left.
    pub(crate) fn training_paused(&mut self, now: Duration) {
        self.estimator.training_paused(now);
    }

    /// The run has applied more steps than ever before.
    pub(crate) fn progressed(&mut self) {
        self.restore_failures = 0;
    }

    /// A member has left its generation, and has staged no slice of a step after `last`.
    pub(crate) fn member_left(
        &mut self,
        cx: &Context,
        worker: WorkerId,
        generation: u64,
        last: u64,
    ) -> Effects {
        let mut effects = Effects::new();
        let member = self.members.get_mut(&generation).and_then(|members| members.get_mut(&worker));
        if let Some(Some(known)) = member {
            *known = last;
        }
        let hopeless = |key: &Key| key.0 == generation && key.1 > last;
        for key in self.awaited_from(worker).into_iter().filter(hopeless) {
            let reason = format!("worker {worker} left its generation before its slice was staged");
            self.drop_save(cx, key, &reason, &mut effects);
        }
        effects
    }

    /// A worker is lost: a checkpoint that needs another slice of it can never be whole. If that broke the live
    /// generation, `members` is the number of its members.
    pub(crate) fn worker_lost(&mut self, cx: &Context, worker: WorkerId, members: Option<usize>) -> Effects {
        let mut effects = Effects::new();
        if let Some(members) = members {
            self.estimator.lost_one_of(members);
        }
        for generation in self.members.values_mut() {
            if let Some(last) = generation.get_mut(&worker) {
                *last = None;
            }
        }
        for key in self.awaited_from(worker) {
            self.drop_save(cx, key, &lost_before_saving(worker), &mut effects);
        }
        effects
    }

    /// A member has left its generation at a boundary on which it staged a slice.
    pub(crate) fn member_staged(&mut self, cx: &Context, generation: u64, step: u64) -> Effects {
        self.expect(cx, (generation, step))
    }

    /// A member has applied the run's last step, and staged a slice of the last checkpoint. `all`: so has every other.
    pub(crate) fn member_completed(&mut self, cx: &Context, last: Key, all: bool) -> Effects {
        self.last_step = Some(last.1);
        if all {
            // While members evaluate the last step, a request only reaches them when that is over, and then they take it
            // as answered by the checkpoint that they have staged.
            self.asked = None;
        }
        self.expect(cx, last)
    }

    /// Members stage, or have staged, slices of this checkpoint, though none may be in the store yet.
    fn expect(&mut self, cx: &Context, key: Key) -> Effects {
        let mut effects = Effects::new();
        let known =
            self.pending.contains_key(&key) || self.committing.contains(&key) || self.dropped.contains(&key);
        if known {
            return effects;
        }
        let Some(members) = self.members.get(&key.0) else { return effects };
        if self.asked == Some(key.0) {
            self.asked = None;
        }
        self.begun = cx.now;
        if self.retry.is_some_and(|(failed, _)| failed <= key.1) {
            self.retry = None;
        }
        if self.is_superseded(key.1) {
            self.dropped.insert(key);
            effects.command(Command::Discard { run: cx.run.clone(), generation: key.0, step: key.1 });
            return effects;
        }
        self.pending.insert(key, Awaited { since: cx.now, from: members.keys().copied().collect() });
        // A member may have been lost, or have left without that step, before the first slice arrived.
        let absent = members.iter().find(|&(_, &last)| last < Some(key.1)).map(|(&id, _)| id);
        if let Some(absent) = absent {
            self.drop_save(cx, key, &lost_before_saving(absent), &mut effects);
        }
        effects
    }

    fn drop_save(&mut self, cx: &Context, key: Key, reason: &str, effects: &mut Effects) {
        let (generation, step) = key;
        self.pending.remove(&key);
        self.committing.remove(&key);
        self.dropped.insert(key);
        let later = self.pending.keys().any(|&(_, pending)| pending > step);
        if !later && !self.is_superseded(step) {
            self.retry = Some((step, cx.now + cx.timing.save_retry_delay));
        }
        self.failure = Some(SaveFailure { step, reason: reason.to_owned() });
        effects.command(Command::Discard { run: cx.run.clone(), generation, step });
        let text = format!("the checkpoint of step {step} could not be saved: {reason}");
        effects.warn(cx, text, Vec::new());
    }
}

fn lost_before_saving(worker: WorkerId) -> String {
    format!("worker {worker} was lost before its slice was saved")
}

/// What the run decides about its checkpoints.
impl Checkpoints {
    /// Asks the members of a generation for a checkpoint if one is due by time, or to make up for one that failed.
    pub(crate) fn ask_if_due(&mut self, cx: &Context, live: Option<Askable>) -> Effects {
        let mut effects = Effects::new();
        let due = match cx.facts.checkpoint {
            CheckpointEvery::Time(every) => cx.since(self.begun) >= every,
            CheckpointEvery::Auto => {
                cx.since(self.begun) >= self.estimator.interval(cx.now, &cx.timing).every
            }
            CheckpointEvery::Steps(_) => false,
        };
        let due = due || self.retry.is_some_and(|(_, at)| at <= cx.now);
        let Some(live) = live.filter(|_| due && !self.is_under_way()) else { return effects };
        let generation = live.generation;
        let is_committed = live.last_step.is_some() && self.newest_step() == live.last_step;
        if self.asked == Some(generation) || is_committed {
            return effects;
        }
        self.asked = Some(generation);
        for worker in live.members {
            let run = cx.run.clone();
            effects.command(Command::Ask { run, worker, generation, checkpoint: true, halt: false });
        }
        if let Some(last) = live.last_step {
            // Members that have applied the last step stage the same checkpoint once more.
            self.dropped.remove(&(generation, last));
            effects.append(self.expect(cx, (generation, last)));
        }
        effects
    }

    /// Members whose slice did not arrive in time, however alive they seem, and which deadline they missed.
    pub(crate) fn overdue_members(&self, cx: &Context) -> Vec<(WorkerId, String)> {
        let timeout = cx.timing.save_timeout;
        let reason = format!("its slice of a checkpoint was not saved within {} s", timeout.as_secs_f32());
        let late = self.pending.values().filter(|awaited| cx.since(awaited.since) > timeout);
        late.flat_map(|awaited| &awaited.from).map(|&worker| (worker, reason.clone())).collect()
    }

    /// Announces the interval between checkpoints if it is noticeably different from the one last announced.
    pub(crate) fn announce_interval(&mut self, cx: &Context) -> Effects {
        let mut effects = Effects::new();
        let Some(interval) = self.interval(cx) else { return effects };
        let noticeable = self.announced.is_none_or(|last| {
            let (less, more) = (last.every.min(interval.every), last.every.max(interval.every));
            last.cost.is_none() || more > less * NOTICEABLE.0 / NOTICEABLE.1
        });
        if noticeable {
            self.announced = Some(interval);
            effects.announce(cx, Notice::Interval(interval));
        }
        effects
    }
}

/// Questions.
impl Checkpoints {
    /// Where the state is when no worker holds it; `None` while a damaged checkpoint is being quarantined.
    pub(crate) fn start(&self) -> Option<&Start> {
        (!self.quarantining).then_some(&self.newest)
    }

    /// Steps applied in the newest committed checkpoint.
    pub(crate) fn newest_step(&self) -> Option<u64> {
        match self.newest {
            Start::Initial => None,
            Start::Checkpoint { step, .. } => Some(step),
        }
    }

    /// Whether any checkpoint is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.pending.is_empty() || self.is_committing()
    }

    /// Whether a commit has yet to be answered.
    pub(crate) fn is_committing(&self) -> bool {
        !self.committing.is_empty()
    }

    /// Whether the store has refused the checkpoint that the run's end waits for so often that it is given up.
    pub(crate) fn is_refused(&self, max_failures: u32) -> bool {
        self.refusals >= max_failures
    }

    /// Why the last checkpoint failed, unless one was committed since.
    pub(crate) fn failure(&self) -> Option<&SaveFailure> {
        self.failure.as_ref()
    }

    /// The interval between checkpoints, if the core chooses it.
    pub(crate) fn interval(&self, cx: &Context) -> Option<Interval> {
        (cx.facts.checkpoint == CheckpointEvery::Auto).then(|| self.estimator.interval(cx.now, &cx.timing))
    }

    /// What keeps a run without a generation from forming one, if it is a checkpoint.
    pub(crate) fn phase(&self) -> Option<(Phase, String)> {
        let detail = "a checkpoint that a worker reported as damaged is being checked";
        self.quarantining.then(|| (Phase::Regrouping, detail.into()))
    }

    /// Checkpoints that lack a slice of that worker.
    fn awaited_from(&self, worker: WorkerId) -> Vec<Key> {
        let lacks = |awaited: &Awaited| awaited.from.contains(&worker);
        self.pending.iter().filter(|(_, awaited)| lacks(awaited)).map(|(&key, _)| key).collect()
    }

    /// Whether a checkpoint of at least that step is committed or being committed.
    fn is_superseded(&self, step: u64) -> bool {
        self.newest_step().is_some_and(|newest| newest >= step)
            || self.committing.iter().any(|&(_, committing)| committing >= step)
    }
}
