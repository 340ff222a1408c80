//! The generations of a run: formed, training, halted, broken and replaced; and how far they have taken the run.

mod no_progress;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use whimbrel_plan::{Member, Origin, WorkerId, equal_shares};

use self::no_progress::NoProgress;
pub(crate) use self::no_progress::Remedy;
use crate::{
    command::{Command, Formation, Notice},
    event::{Cause, Completion},
    facts::Start,
    machine::{Askable, Candidate, Context, Effect, Effects, FinalState, RestoreFailure, Results},
    phase::Phase,
};

/// The generations of a run.
#[derive(Debug)]
pub(crate) struct Generations {
    /// The generation that exists now, if one does.
    live: Option<Live>,
    last_number: u64,
    /// Since when the run has been without a generation that trains.
    gap_since: Duration,
    no_progress: NoProgress,
    progress: Progress,
}

/// How far the run has got.
#[derive(Debug)]
struct Progress {
    /// The most steps ever applied.
    step: u64,
    /// The most steps announced since the state was last restored.
    announced: u64,
    loss: Option<f64>,
    val_loss: Option<f64>,
}

/// A generation, from its forming until each member has left it or is lost.
#[derive(Debug)]
struct Live {
    number: u64,
    /// In rank order.
    members: Vec<WorkerId>,
    /// Members that have neither left nor been lost.
    present: BTreeSet<WorkerId>,
    /// Shards of each step, by rank.
    shares: Vec<u32>,
    /// When it last made progress.
    progress_at: Duration,
    /// Steps applied to the state that it started from.
    first_step: u64,
    /// It has applied a step.
    progressed: bool,
    /// A member is lost, whether before or after it left.
    lost_member: bool,
    /// How many members suspect each worker.
    suspected: BTreeMap<WorkerId, u32>,
    /// Why the first member that found it broken left.
    reason: Option<String>,
    /// Since when it is known to be broken.
    broken: Option<Duration>,
    /// It is broken, and the members still in it were interrupted.
    interrupted: bool,
    /// The halt that was asked for.
    halt: Option<Halt>,
    /// Members that have applied the run's last step, with the BLAKE3 of their state.
    completed: BTreeMap<WorkerId, [u8; 32]>,
    /// Which step that is: that of the run spec, unless the program ends the run before.
    last_step: u64,
}

/// A halt at the next step boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// To let other workers join.
    ToAdmit,
    /// To stop the run: the members stage a checkpoint where they halt.
    ToStop,
}

/// What a new generation is formed from.
#[derive(Debug)]
pub(crate) struct Ingredients<'a> {
    /// The ready workers by rank.
    pub(crate) candidates: Vec<Candidate>,
    /// No further worker is waited for.
    pub(crate) gathered: bool,
    /// Where the state is if no candidate holds it.
    pub(crate) start: &'a Start,
    /// A commit is under way and may move `start` further.
    pub(crate) committing: bool,
    /// The fewest members.
    pub(crate) workers_min: u32,
}

impl Live {
    fn is_complete(&self) -> bool {
        self.completed.len() == self.members.len()
    }

    /// Whether it broke before it applied a step, though no member was lost.
    fn made_no_progress(&self) -> bool {
        self.broken.is_some() && !self.progressed && !self.lost_member
    }

    /// The member that most others suspect.
    fn main_suspect(&self) -> Option<WorkerId> {
        let suspects = self.suspected.iter().filter(|(id, _)| self.members.contains(id));
        suspects.max_by_key(|&(id, count)| (count, Reverse(id))).map(|(&id, _)| id)
    }
}

/// What workers report.
impl Generations {
    pub(crate) fn new(start: &Start, now: Duration) -> Self {
        Self {
            live: None,
            last_number: 0,
            gap_since: now,
            no_progress: NoProgress::default(),
            progress: Progress { step: start.step(), announced: 0, loss: None, val_loss: None },
        }
    }

    /// A worker is lost. If that breaks the live generation, returns how many members the generation has.
    pub(crate) fn worker_lost(&mut self, now: Duration, worker: WorkerId) -> Option<usize> {
        let live = self.live.as_mut().filter(|live| live.members.contains(&worker))?;
        live.lost_member = true;
        if !live.present.remove(&worker) {
            return None;
        }
        if live.broken.is_none() {
            live.broken = Some(now);
            self.gap_since = now;
        }
        Some(live.members.len())
    }

    /// A member's state has `step` steps applied. Returns whether that is further than the run ever was.
    pub(crate) fn reach_step(&mut self, now: Duration, step: u64) -> bool {
        let further = step > self.progress.step;
        if further {
            self.progress.step = step;
            if let Some(live) = &mut self.live {
                live.progress_at = now;
            }
        }
        further
    }

    pub(crate) fn step_applied(
        &mut self,
        cx: &Context,
        reporter: WorkerId,
        generation: u64,
        step: u64,
        loss: f64,
    ) -> Effects {
        let mut effects = Effects::new();
        let Some(live) = self.live.as_mut().filter(|live| live.number == generation) else { return effects };
        live.progress_at = cx.now;
        live.progressed |= step > live.first_step;
        let members = live.members.clone();
        let workers = members.len() as u32;
        effects.push(Effect::StepApplied { reporter, members, step });
        effects.push(Effect::StepReached(step));
        // When a generation begins, members that hold the state report the step that led to it again, in case the member
        // that was to report it has died.
        if step > self.progress.announced {
            self.progress.announced = step;
            self.progress.loss = Some(loss);
            effects.announce(cx, Notice::Step { step, generation, workers, loss });
        }
        effects
    }

    pub(crate) fn evaluated(&mut self, cx: &Context, step: u64, val_loss: f64) -> Effects {
        self.progress.val_loss = Some(val_loss);
        let mut effects = Effects::new();
        effects.announce(cx, Notice::Evaluated { step, val_loss });
        effects
    }

    /// A member has left, either at a boundary on which all agreed or because the generation is broken.
    pub(crate) fn halted(
        &mut self,
        cx: &Context,
        worker: WorkerId,
        generation: u64,
        step: Option<u64>,
        cause: Cause,
    ) -> Effects {
        let mut effects = Effects::new();
        let Some(live) = self.live.as_mut().filter(|live| live.number == generation) else { return effects };
        if !live.present.remove(&worker) {
            return effects;
        }
        let completed = live.completed.remove(&worker).is_some();
        let agreed = cause == Cause::Agreed;
        let staged = live.halt == Some(Halt::ToStop) && agreed;
        if let Cause::Broken { reason, suspect } = cause {
            if let Some(suspect) = suspect {
                *live.suspected.entry(suspect).or_default() += 1;
            }
            live.reason.get_or_insert_with(|| reason.clone());
            if live.broken.is_none() {
                live.broken = Some(cx.now);
                self.gap_since = cx.now;
                let suspected =
                    suspect.map(|suspect| format!(" (it suspects {suspect})")).unwrap_or_default();
                let text = format!("worker {worker} left generation {generation}: {reason}{suspected}");
                effects.warn(cx, text, Vec::new());
            }
        }
        // A checkpoint of the state that a generation starts from is the last one of the run, and a member may have left
        // before it staged its slice. The next generation takes that checkpoint again.
        let held = step.unwrap_or(0);
        let has_applied_none = live.first_step == held && !agreed && !completed;
        let saves_through = if has_applied_none { held.saturating_sub(1) } else { held };
        effects.push(Effect::MemberLeft { worker, generation, step, staged, saves_through });
        effects
    }

    /// A member has applied the run's last step.
    pub(crate) fn completed(
        &mut self,
        cx: &Context,
        worker: WorkerId,
        generation: u64,
        completion: Completion,
    ) -> Effects {
        let mut effects = Effects::new();
        let Completion { step, state, loss, val_loss } = completion;
        let Some(live) = self.live.as_mut().filter(|live| live.number == generation) else { return effects };
        if !live.present.contains(&worker) {
            return effects;
        }
        live.progressed = true;
        live.completed.insert(worker, state);
        live.last_step = step;
        live.progress_at = cx.now;
        effects.push(Effect::MemberCompleted { generation, step, all: live.is_complete() });
        self.progress.loss = loss.or(self.progress.loss);
        self.progress.val_loss = val_loss.or(self.progress.val_loss);
        self.progress.step = step;
        effects
    }

    /// A member could not read the checkpoint that its generation starts from, and has left.
    pub(crate) fn restore_failed(
        &mut self,
        now: Duration,
        worker: WorkerId,
        generation: u64,
        failure: RestoreFailure,
    ) -> Effects {
        let mut effects = Effects::new();
        let Some(live) = self.live.as_mut().filter(|live| live.number == generation) else { return effects };
        if !live.present.remove(&worker) {
            return effects;
        }
        effects.push(Effect::MemberLeft { worker, generation, step: None, staged: false, saves_through: 0 });
        if live.broken.is_none() {
            live.broken = Some(now);
            self.gap_since = now;
            effects.push(Effect::RestoreFailed(failure));
        }
        effects
    }

    /// The run goes back to an earlier checkpoint: steps beyond it are computed again, and are progress then.
    pub(crate) fn fall_back_to(&mut self, start: &Start) {
        self.progress.step = start.step();
    }
}

/// What the run decides about its generations.
impl Generations {
    /// Members that have missed the deadline for their next step boundary, and which deadline that was.
    pub(crate) fn stuck_members(&self, cx: &Context) -> Vec<(WorkerId, String)> {
        let Some(live) = &self.live else { return Vec::new() };
        let timeout = cx.facts.step_timeout;
        let (since, what) = match live.broken {
            Some(since) => (since, "did not leave its generation"),
            // Twice the timeout: members that wait for another one must have had the time to say for which.
            None => (live.progress_at + timeout, "applied no step"),
        };
        if cx.since(since) <= timeout {
            return Vec::new();
        }
        let is_done = |worker: &WorkerId| live.broken.is_none() && live.completed.contains_key(worker);
        let reason = format!("{what} within {} s", timeout.as_secs_f32());
        live.present.iter().filter(|&worker| !is_done(worker)).map(|&id| (id, reason.clone())).collect()
    }

    /// Ends the live generation if no member is left in it. Returns what has to happen if too many generations in a row
    /// made no progress.
    pub(crate) fn end_if_empty(&mut self, max_failures: u32) -> Option<Remedy> {
        let live = self.live.take_if(|live| live.present.is_empty())?;
        if !live.made_no_progress() {
            self.no_progress.reset();
            return None;
        }
        let why = live.reason.as_deref().unwrap_or_default();
        self.no_progress.count(live.main_suspect(), why, max_failures)
    }

    /// Forms the next generation if there is none and the ingredients suffice.
    pub(crate) fn form(&mut self, cx: &Context, from: Ingredients<'_>) -> Effects {
        let Ingredients { mut candidates, gathered, start, committing, workers_min } = from;
        if self.live.is_some() || candidates.len() < workers_min as usize {
            return Effects::new();
        }
        // A worker that was left outside the last generation may be behind the newest checkpoint: its state is of no use.
        let held = candidates.iter().filter_map(|candidate| candidate.holds).max();
        let held = held.filter(|&step| step >= start.step());
        // Workers that hold the state go on at once. A start from a checkpoint or from the seed waits for the workers that
        // are on their way, and for a commit that may move the start further.
        if held.is_none() && (!gathered || committing) {
            return Effects::new();
        }
        let origin = match (held, start) {
            (Some(step), _) => Origin::Members { step },
            (None, Start::Initial) => Origin::Initial,
            (None, Start::Checkpoint { step, manifest }) => {
                Origin::Checkpoint { step: *step, manifest: manifest.clone() }
            }
        };
        // If there are too many, the ones that hold the state come first; then by rank.
        candidates.sort_by_key(|candidate| (candidate.holds != held, candidate.rank));
        candidates.truncate(cx.facts.workers_max.min(cx.facts.shards) as usize);
        candidates.sort_unstable_by_key(|candidate| candidate.rank);
        self.begin(cx, origin, &candidates)
    }

    fn begin(&mut self, cx: &Context, origin: Origin, candidates: &[Candidate]) -> Effects {
        let shares = equal_shares(cx.facts.shards, candidates.len());
        let member = |(candidate, &share): (&Candidate, &u32)| Member {
            worker: candidate.worker,
            address: candidate.address,
            share,
            holds: candidate.holds,
        };
        let members: Vec<Member> = candidates.iter().zip(&shares).map(member).collect();
        let ids: Vec<WorkerId> = members.iter().map(|member| member.worker).collect();
        self.last_number += 1;
        let number = self.last_number;
        let step = match &origin {
            Origin::Initial => 0,
            Origin::Checkpoint { step, .. } | Origin::Members { step } => *step,
        };
        if !matches!(origin, Origin::Members { .. }) {
            // Steps beyond it are computed again, and announced again.
            self.progress.announced = step;
        }
        self.live = Some(Live {
            number,
            members: ids.clone(),
            present: ids.iter().copied().collect(),
            shares,
            progress_at: cx.now,
            first_step: step,
            progressed: false,
            lost_member: false,
            suspected: BTreeMap::new(),
            reason: None,
            broken: None,
            interrupted: false,
            halt: None,
            completed: BTreeMap::new(),
            last_step: cx.facts.steps,
        });
        let notice = Notice::Formed {
            generation: number,
            step,
            workers: ids.len() as u32,
            origin: origin.clone(),
            gap: if number == 1 { Duration::ZERO } else { cx.since(self.gap_since) },
        };
        let mut effects = Effects::new();
        effects.push(Effect::GenerationFormed { number, members: ids });
        effects
            .command(Command::Form { run: cx.run.clone(), formation: Formation { number, origin, members } });
        effects.announce(cx, notice);
        effects
    }

    /// Interrupts the members that are still in a broken generation, or asks those of a whole one to halt.
    pub(crate) fn interrupt_or_halt(&mut self, cx: &Context, halt: Option<Halt>) -> Effects {
        let mut effects = Effects::new();
        let Some(live) = &mut self.live else { return effects };
        let generation = live.number;
        if live.broken.is_some() {
            if !live.interrupted {
                live.interrupted = true;
                for &worker in &live.present {
                    effects.command(Command::Interrupt { run: cx.run.clone(), worker, generation });
                }
            }
            return effects;
        }
        // A generation that has applied the last step is not halted: it ends by itself.
        if let Some(halt) = halt
            && live.halt.is_none()
            && live.completed.is_empty()
        {
            live.halt = Some(halt);
            self.gap_since = cx.now;
            let checkpoint = halt == Halt::ToStop;
            for &worker in &live.present {
                let run = cx.run.clone();
                effects.command(Command::Ask { run, worker, generation, checkpoint, halt: true });
            }
        }
        effects
    }

    /// The run has ended.
    pub(crate) fn disband(&mut self) {
        self.live = None;
    }
}

/// Questions.
impl Generations {
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Whether the live generation has as many members as the run may have.
    pub(crate) fn has_room(&self, cx: &Context) -> bool {
        let most = cx.facts.workers_max.min(cx.facts.shards) as usize;
        self.live.as_ref().is_some_and(|live| live.members.len() < most)
    }

    /// The live generation, if a checkpoint can be asked for now.
    pub(crate) fn askable(&self, steps: u64) -> Option<Askable> {
        let live = self.live.as_ref().filter(|live| live.broken.is_none())?;
        let complete = live.is_complete();
        // From the last step until all members have completed it there is no boundary left on which they agree.
        let at_boundary = live.completed.is_empty() && self.progress.announced < steps && live.halt.is_none();
        (complete || at_boundary).then(|| Askable {
            generation: live.number,
            members: live.present.iter().copied().collect(),
            last_step: complete.then_some(live.last_step),
        })
    }

    /// The states after the run's last step, once every member has applied it.
    pub(crate) fn final_state(&self) -> Option<FinalState> {
        let live = self.live.as_ref().filter(|live| live.is_complete())?;
        let (&first, &state) = live.completed.first_key_value()?;
        let other = live.completed.iter().find(|&(_, other)| *other != state);
        Some(other.map_or(FinalState::Same(state), |(&other, _)| FinalState::Differs(first, other)))
    }

    pub(crate) fn results(&self) -> Results {
        let live = self.live.as_ref();
        Results {
            step: self.progress.step,
            loss: self.progress.loss,
            val_loss: self.progress.val_loss,
            state: live.and_then(|live| live.completed.values().next().copied()),
        }
    }

    /// The share of each member of the live generation.
    pub(crate) fn shares(&self) -> BTreeMap<WorkerId, u32> {
        let live = self.live.iter();
        live.flat_map(|live| live.members.iter().copied().zip(live.shares.iter().copied())).collect()
    }

    /// What the live generation is doing, and why.
    pub(crate) fn phase(&self) -> Option<(Phase, String)> {
        self.live.as_ref().map(|live| {
            if live.broken.is_some() {
                (Phase::Regrouping, "a worker was lost".into())
            } else if live.halt.is_some() {
                (Phase::Regrouping, "workers join".into())
            } else {
                (Phase::Training, String::new())
            }
        })
    }
}
