//! Generations formed, broken, halted and replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use whimbrel_plan::{Member, Origin, WorkerId, equal_shares};

use crate::{
    command::{Command, Formation, Notice},
    event::Cause,
    facts::Start,
    run::{Run, Worker, WorkerState},
};

/// A generation from its forming until each member has left it or is lost.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) members: Vec<WorkerId>,
    /// Members that have neither left nor been lost.
    pub(crate) present: BTreeSet<WorkerId>,
    /// Shards of each step, by rank.
    pub(crate) shares: Vec<u32>,
    /// When it last got further.
    progress: Duration,
    /// The steps applied to the state it began with, and whether it has applied another.
    first_step: u64,
    progressed: bool,
    /// How often members came to suspect each.
    suspected: BTreeMap<WorkerId, u32>,
    /// What a member said of its end.
    reason: Option<String>,
    /// Since when it is known to be beyond repair; the members still in it are told to leave.
    broken: Option<Duration>,
    /// The members have been told to leave.
    interrupted: bool,
    /// A halt has been asked for.
    pub(crate) halt_asked: bool,
    /// It has been asked for together with a checkpoint: where the members halt they have staged one.
    halt_saves: bool,
    /// A checkpoint has been asked for that no slice has come of yet.
    pub(crate) checkpoint_asked: bool,
    /// Members that have applied the run's last step, with the BLAKE3 of their state.
    pub(crate) completed: BTreeMap<WorkerId, [u8; 32]>,
}

impl Live {
    pub(crate) fn is_complete(&self) -> bool {
        self.completed.len() == self.members.len()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

impl Run {
    /// Takes note that a worker is gone, if it was a member.
    pub(crate) fn miss_member(&mut self, now: Duration, worker: WorkerId) {
        let Some(live) = &mut self.live else { return };
        if !live.present.remove(&worker) {
            return;
        }
        self.experience.lost_one_of(live.members.len());
        if live.broken.is_none() {
            live.broken = Some(now);
            self.gap_since = now;
        }
    }

    /// Takes note that the run has got to `step`.
    pub(crate) fn advance(&mut self, now: Duration, step: u64) {
        if step > self.high {
            self.high = step;
            self.restore_failures = 0;
            if let Some(live) = &mut self.live {
                live.progress = now;
            }
        }
    }

    pub(crate) fn step_applied(
        &mut self,
        now: Duration,
        worker: WorkerId,
        generation: u64,
        step: u64,
        loss: f64,
        out: &mut Vec<Command>,
    ) {
        let Some(live) = &mut self.live else { return };
        if live.number != generation {
            return;
        }
        live.progress = now;
        live.progressed |= step > live.first_step;
        let workers = live.members.len() as u32;
        for member in &live.members {
            if let Some(member) = self.workers.get_mut(member) {
                // Nobody applies a step that the others have not at least got the sum of.
                member.reached = member.reached.max(step.saturating_sub(1));
            }
        }
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.reached = worker.reached.max(step);
            worker.heard = now;
        }
        self.advance(now, step);
        // Members that hold the state report the step that led to it again at a generation's beginning, in case that
        // the one whose report it was to be has died.
        if step > self.told {
            self.told = step;
            self.loss = Some(loss);
            self.announce(Notice::Step { step, generation, workers, loss }, out);
        }
    }

    pub(crate) fn halted(
        &mut self,
        now: Duration,
        id: WorkerId,
        generation: u64,
        step: Option<u64>,
        cause: Cause,
        out: &mut Vec<Command>,
    ) {
        let Some(live) = &mut self.live else { return };
        if live.number != generation || !live.present.remove(&id) {
            return;
        }
        live.completed.remove(&id);
        let staged = live.halt_saves && cause == Cause::Agreed;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.state = WorkerState::Ready { holds: step, since: now };
            worker.heard = now;
            worker.reached = worker.reached.max(step.unwrap_or(0));
        }
        if let Cause::Broken { reason, suspect } = cause {
            if let Some(suspect) = suspect {
                *live.suspected.entry(suspect).or_default() += 1;
            }
            live.reason.get_or_insert_with(|| reason.clone());
            if live.broken.is_none() {
                live.broken = Some(now);
                self.gap_since = now;
                let suspected =
                    suspect.map(|suspect| format!(" (it suspects {suspect})")).unwrap_or_default();
                let text = format!("worker {id} left generation {generation}: {reason}{suspected}");
                self.warn(text, Vec::new(), out);
            }
        }
        self.member_left(now, id, generation, step, out);
        if let Some(step) = step {
            self.advance(now, step);
            if staged {
                self.expect_save(now, (generation, step), out);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(crate) fn completed(
        &mut self,
        now: Duration,
        id: WorkerId,
        generation: u64,
        state: [u8; 32],
        loss: Option<f64>,
        val_loss: Option<f64>,
        out: &mut Vec<Command>,
    ) {
        let Some(live) = &mut self.live else { return };
        if live.number != generation || !live.present.contains(&id) {
            return;
        }
        live.progressed = true;
        live.completed.insert(id, state);
        live.progress = now;
        if live.is_complete() {
            // Members hear of what is asked for while they evaluate the last step only when that is over, and then take
            // it for the checkpoint that they have staged.
            live.checkpoint_asked = false;
        }
        self.loss = loss.or(self.loss);
        self.val_loss = val_loss.or(self.val_loss);
        self.high = self.facts.steps;
        self.expect_save(now, (generation, self.facts.steps), out);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(crate) fn restore_failed(
        &mut self,
        now: Duration,
        id: WorkerId,
        generation: u64,
        manifest: &str,
        damaged: bool,
        reason: &str,
        out: &mut Vec<Command>,
    ) {
        let Some(live) = &mut self.live else { return };
        if live.number != generation {
            return;
        }
        if live.present.remove(&id)
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.state = WorkerState::Ready { holds: None, since: now };
            worker.heard = now;
        }
        let known = live.broken.is_some();
        live.broken.get_or_insert(now);
        self.member_left(now, id, generation, None, out);
        if known {
            return;
        }
        self.gap_since = now;
        if damaged {
            self.warn(format!("checkpoint {manifest} was found damaged: {reason}"), Vec::new(), out);
            self.start = None;
            let (run, manifest, reason) = (self.id.clone(), manifest.to_owned(), reason.to_owned());
            out.push(Command::Quarantine { run, manifest, reason });
            return;
        }
        self.restore_failures += 1;
        let text = format!("checkpoint {manifest} could not be read: {reason}");
        if self.restore_failures < self.facts.max_failures {
            self.warn(format!("{text}; trying again"), Vec::new(), out);
        } else {
            self.fail(format!("{text}, {} times in a row", self.restore_failures), Vec::new(), out);
        }
    }

    pub(crate) fn quarantined(&mut self, start: Start) {
        // Steps beyond it are computed again, and are progress then.
        self.high = start.step();
        self.saves.committed = match &start {
            Start::Initial => None,
            Start::Checkpoint { step, .. } => Some(*step),
        };
        self.start = Some(start);
    }

    /// Sees to the live generation, and forms the next if there is none.
    pub(crate) fn tend_generation(&mut self, now: Duration, out: &mut Vec<Command>) {
        self.lose_the_stuck(now, out);
        if self.live.as_ref().is_none_or(|live| live.present.is_empty()) {
            if let Some(live) = self.live.take() {
                self.judge_no_progress(now, live, out);
            }
            if !self.has_ended() {
                self.form(now, out);
            }
            if self.live.is_none() {
                self.experience.rests(now);
            }
        }
        let admit = self.newcomers_wait(now);
        let halt = admit || self.is_stopping();
        let checkpoint = self.is_stopping();
        let Some(live) = &mut self.live else { return };
        if live.broken.is_some() && !live.interrupted {
            live.interrupted = true;
            for &worker in &live.present {
                out.push(Command::Interrupt { run: self.id.clone(), worker, generation: live.number });
            }
        }
        // A generation that has applied the last step halts for nobody, and ends by itself.
        if halt && live.broken.is_none() && !live.halt_asked && live.completed.is_empty() {
            live.halt_asked = true;
            live.halt_saves = checkpoint;
            self.gap_since = now;
            for &worker in &live.present {
                let (run, generation) = (self.id.clone(), live.number);
                out.push(Command::Ask { run, worker, generation, checkpoint, halt });
            }
        }
    }

    /// Generations that break one after another before their first step, though nobody dies, would do so for ever: some
    /// member cannot be worked with, be it that its peers cannot reach it. The one that most suspect has to go.
    fn judge_no_progress(&mut self, now: Duration, live: Live, out: &mut Vec<Command>) {
        let well =
            |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.state != WorkerState::Lost);
        if live.broken.is_none() || live.progressed || !live.members.iter().all(well) {
            self.no_progress = 0;
            return;
        }
        self.no_progress += 1;
        if self.no_progress < self.facts.max_failures {
            return;
        }
        let (no_progress, reason) = (self.no_progress, live.reason.unwrap_or_default());
        let suspects = live.suspected.iter().filter(|(id, _)| live.members.contains(id));
        if let Some((&suspect, _)) = suspects.max_by_key(|&(id, count)| (count, std::cmp::Reverse(id))) {
            let text = format!("{no_progress} generations in a row broke before their first step: {reason}");
            self.lose(now, suspect, &text, out);
        } else if no_progress >= 2 * self.facts.max_failures {
            let text = format!("{no_progress} generations in a row broke before their first step: {reason}");
            self.fail(text, Vec::new(), out);
        }
    }

    /// Members that have not come to a step boundary in time are lost.
    fn lose_the_stuck(&mut self, now: Duration, out: &mut Vec<Command>) {
        let Some(live) = &self.live else { return };
        let patience = self.facts.step_timeout;
        let (since, what) = match live.broken {
            Some(since) => (since, "did not leave its generation"),
            // Twice: when members wait for one of them, they must have had the time to say which.
            None => (live.progress + patience, "applied no step"),
        };
        if now.saturating_sub(since) <= patience {
            return;
        }
        let waits = |worker: &&WorkerId| live.broken.is_none() && live.completed.contains_key(worker);
        let stuck: Vec<WorkerId> = live.present.iter().filter(|worker| !waits(worker)).copied().collect();
        for worker in stuck {
            self.lose(now, worker, &format!("{what} within {} s", patience.as_secs_f32()), out);
        }
    }

    /// Whether ready workers stand outside the live generation and should not wait longer.
    fn newcomers_wait(&self, now: Duration) -> bool {
        let Some(live) = &self.live else { return false };
        let full = live.members.len() >= self.facts.workers_max.min(self.facts.shards) as usize;
        !full && self.gathered(now)
    }

    /// Whether there are ready workers, and the others that are starting have come or have had their time.
    fn gathered(&self, now: Duration) -> bool {
        let ready = |worker: &Worker| match worker.state {
            WorkerState::Ready { since, .. } => Some(since),
            _ => None,
        };
        let starting = |worker: &Worker| matches!(worker.state, WorkerState::Starting { .. });
        let Some(first) = self.workers.values().filter_map(ready).min() else { return false };
        !self.workers.values().any(starting) || now.saturating_sub(first) >= self.timing.gather
    }

    /// Forms the next generation from the ready workers, if they are enough.
    fn form(&mut self, now: Duration, out: &mut Vec<Command>) {
        if !self.may_form() {
            return;
        }
        let ready = |(&id, worker): (&WorkerId, &Worker)| match (worker.state, worker.address) {
            (WorkerState::Ready { holds, .. }, Some(address)) => Some((worker.rank, id, holds, address)),
            _ => None,
        };
        let mut ready: Vec<_> = self.workers.iter().filter_map(ready).collect();
        let held = ready.iter().filter_map(|&(_, _, holds, _)| holds).max();
        let needed = if self.is_stopping() { 1 } else { self.facts.workers_min.max(1) };
        if ready.len() < needed as usize {
            return;
        }
        // A damaged checkpoint may be on its way to be put aside.
        let Some(start) = &self.start else { return };
        // What was left outside the last generation may be behind the newest checkpoint, and then counts for nothing.
        let held = held.filter(|&step| step >= start.step());
        // Who holds the state goes on at once; a beginning waits for those that are on their way, and for a commit that
        // may take it further.
        if held.is_none() && (!self.gathered(now) || self.saves.is_committing()) {
            return;
        }
        let origin = match (held, start) {
            (Some(step), _) => Origin::Members { step },
            (None, Start::Initial) => Origin::Initial,
            (None, Start::Checkpoint { step, manifest }) => {
                Origin::Checkpoint { step: *step, manifest: manifest.clone() }
            }
        };
        ready.sort_unstable_by_key(|&(rank, ..)| rank);
        // Where there is no room for all, who holds the state comes first.
        ready.sort_by_key(|&(_, _, holds, _)| holds != held);
        ready.truncate(self.facts.workers_max.min(self.facts.shards) as usize);
        ready.sort_unstable_by_key(|&(rank, ..)| rank);
        let shares = equal_shares(self.facts.shards, ready.len());
        let member = |(&(_, worker, holds, address), &share): (&(u32, WorkerId, Option<u64>, _), &u32)| {
            Member { worker, address, share, holds }
        };
        let members: Vec<Member> = ready.iter().zip(&shares).map(member).collect();
        self.begin(now, origin, members, shares, out);
    }

    fn begin(
        &mut self,
        now: Duration,
        origin: Origin,
        members: Vec<Member>,
        shares: Vec<u32>,
        out: &mut Vec<Command>,
    ) {
        self.last_generation += 1;
        let number = self.last_generation;
        let ids: Vec<WorkerId> = members.iter().map(|member| member.worker).collect();
        for id in &ids {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.state = WorkerState::Member;
                worker.heard = now;
            }
        }
        let step = match &origin {
            Origin::Initial => 0,
            Origin::Checkpoint { step, .. } | Origin::Members { step } => *step,
        };
        if !matches!(origin, Origin::Members { .. }) {
            // Steps beyond it are done again, and told of again.
            self.told = step;
        }
        self.saves.generation_formed(number, &ids);
        self.experience.trains(now);
        let notice = Notice::Formed {
            generation: number,
            step,
            workers: ids.len() as u32,
            origin: origin.clone(),
            gap: if number == 1 { Duration::ZERO } else { now.saturating_sub(self.gap_since) },
        };
        self.live = Some(Live {
            number,
            present: ids.iter().copied().collect(),
            members: ids,
            shares,
            progress: now,
            first_step: step,
            progressed: false,
            suspected: BTreeMap::new(),
            reason: None,
            broken: None,
            interrupted: false,
            halt_asked: false,
            halt_saves: false,
            checkpoint_asked: false,
            completed: BTreeMap::new(),
        });
        out.push(Command::Form { run: self.id.clone(), formation: Formation { number, origin, members } });
        self.announce(notice, out);
    }
}
