//! The worker's decisions: what comes next, and what a result changes.

use std::{num::NonZeroU64, ops::Range, sync::Arc, time::Duration};

use whimbrel_plan::{Generation, Origin, WorkerId};

use crate::{
    action::Action,
    event::Event,
    note::{self, BadNote, StepNote},
    phase::{Phase, Reduced, Todo},
    report::{Cause, Report},
    requests::Requests,
    schedule::Schedule,
};

/// A worker between its coordinator's requests and its peers. The crate's front page says how to drive it.
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    schedule: Schedule,
    held: Held,
    /// The run ends with the state held, though the schedule goes on.
    is_last: bool,
    /// The program wants the run to end, and how many steps were applied when it said so.
    end_wanted: Option<u64>,
    membership: Option<Membership>,
    /// The last generation begun.
    last_generation: u64,
    /// Mean loss of the step that led to the state held, if this worker took part in it.
    loss: Option<f64>,
    /// The last validation loss.
    val_loss: Option<f64>,
    /// Reports that the driver has not taken yet.
    reports: Vec<Report>,
}

/// This worker as a member of a generation.
#[derive(Debug)]
struct Membership {
    generation: Arc<Generation>,
    rank: usize,
    /// Steps applied, which is also the number of the next step.
    step: u64,
    phase: Phase,
    /// How many of the checkpoints that were asked of this generation are taken.
    asks_met: u64,
    /// A checkpoint is due, and was put off because a member still uploads the previous one.
    save_postponed: bool,
}

/// The state that the program holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The initial one, as the program built it; the run may be at a later step.
    Pristine,
    /// The run's, after so many steps.
    Step(u64),
    /// None: the program's memory is half filled, or about to be overwritten.
    Nothing,
}

impl Held {
    /// The steps applied to the run's state, if it is held.
    pub fn step(self) -> Option<u64> {
        match self {
            Self::Step(step) => Some(step),
            Self::Pristine | Self::Nothing => None,
        }
    }

    fn is_initial(self) -> bool {
        matches!(self, Self::Pristine | Self::Step(0))
    }
}

/// The coordinator's generation contradicts what this worker knows. The worker cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "generation {generation} cannot be begun: {why}; are the coordinator and this program of one version?"
)]
pub struct Contradiction {
    /// The generation's number.
    pub generation: u64,
    /// The contradiction.
    pub why: String,
}

impl Worker {
    /// A worker whose program has built the initial state, and that is a member of no generation yet.
    pub fn new(id: WorkerId, schedule: Schedule) -> Self {
        Self {
            id,
            schedule,
            held: Held::Pristine,
            is_last: false,
            end_wanted: None,
            membership: None,
            last_generation: 0,
            loss: None,
            val_loss: None,
            reports: Vec::new(),
        }
    }

    /// Evaluates after each `every` steps, whatever the schedule says. The same on every worker; before the first
    /// generation.
    pub fn evaluate_every(&mut self, every: NonZeroU64) {
        self.schedule.evaluate_every = Some(every.get());
    }

    /// The program wants the run to end before the last step of the schedule. It ends with the next step whose
    /// [note](Self::step_note) is not written yet, on all members alike.
    ///
    /// The driver makes that known in the state itself, between the sum and the next action: members that join, and
    /// workers that restore the state, learn it from [`Event::StateReady`].
    pub fn end_run(&mut self) {
        let applied = match &self.membership {
            Some(member) => member.step + u64::from(matches!(member.phase, Phase::Applying(_))),
            None => self.held.step().unwrap_or(0),
        };
        self.end_wanted.get_or_insert(applied);
    }

    /// The generation it is a member of.
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        self.membership.as_ref().map(|member| &member.generation)
    }

    /// What it does as a member; `None` while it waits for a generation.
    pub fn phase(&self) -> Option<&Phase> {
        self.membership.as_ref().map(|member| &member.phase)
    }

    /// Steps applied in its generation, which is also the number of the next step; `None` while it waits for one.
    pub fn step(&self) -> Option<u64> {
        self.membership.as_ref().map(|member| member.step)
    }

    /// The last validation loss that this worker took part in.
    pub fn val_loss(&self) -> Option<f64> {
        self.val_loss
    }

    /// The state that its program holds.
    pub fn held(&self) -> Held {
        self.held
    }

    /// The last generation begun, 0 if none; heartbeats carry it.
    pub fn last_generation(&self) -> u64 {
        self.last_generation
    }

    /// Takes the reports since the last call, in order. To be sent after the connections of a generation that was left
    /// are closed.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Whether the requests have something to do for a worker whose last action was to [wait](Action::Wait).
    pub fn wakes(&self, requests: &Requests) -> bool {
        if requests.ended().is_some() {
            return true;
        }
        match &self.membership {
            None => requests.generation_after(self.last_generation).is_some(),
            Some(member) if member.phase == Phase::Completed => {
                let number = member.generation.number;
                requests.calls_off(number) || requests.asked_of(number).checkpoints > member.asks_met
            }
            Some(_) => true,
        }
    }

    /// Decides what comes next.
    ///
    /// The call says that the program's work is done: the initial state made, the sum applied. A step or an evaluation
    /// whose result is missing is given out again from its beginning.
    pub fn next(&mut self, requests: &Requests) -> Result<Action, Contradiction> {
        loop {
            if let Some(end) = requests.ended() {
                self.membership = None;
                return Ok(Action::End(end.clone()));
            }
            let Some(member) = &mut self.membership else {
                return match requests.generation_after(self.last_generation) {
                    Some(generation) => self.begin(Arc::clone(generation)),
                    None => Ok(Action::Wait),
                };
            };
            let number = member.generation.number;
            // What the program did last is done, even where the generation is called off by now.
            match &member.phase {
                Phase::Initialising => {
                    self.hold(Some(0));
                    self.starts();
                    continue;
                }
                Phase::Applying(reduced) => {
                    let reduced = reduced.clone();
                    self.applied(reduced);
                    continue;
                }
                _ => {}
            }
            if requests.calls_off(number) {
                self.leave(Cause::Broken {
                    reason: format!("generation {number} was interrupted"),
                    suspect: None,
                });
                return Ok(Action::Leave);
            }
            match member.phase {
                Phase::Initialising | Phase::Applying(_) => {}
                Phase::Joining => return Ok(member.join()),
                Phase::Entering => {
                    let action = member.get_state();
                    if matches!(action, Action::ReceiveState { .. } | Action::Restore { .. }) {
                        // Until all of it is there, it is no state.
                        self.hold(None);
                    }
                    return Ok(action);
                }
                Phase::Uninitialised => {
                    member.phase = Phase::Initialising;
                    return Ok(Action::Initialise);
                }
                Phase::Boundary(todo) => {
                    if let Some(action) = self.at_boundary(todo, requests) {
                        return Ok(action);
                    }
                }
                Phase::Stepping => {
                    return Ok(Action::Step { step: member.step, shards: member.assignment() });
                }
                Phase::Evaluating(_) => {
                    return Ok(Action::Evaluate { step: member.step, parts: member.assignment() });
                }
                Phase::Hashing => return Ok(Action::Hash { step: member.step }),
                // A save failed, and the coordinator asks for another one.
                Phase::Completed if requests.asked_of(number).checkpoints > member.asks_met => {
                    return Ok(member.stage(requests, true));
                }
                Phase::Completed => return Ok(Action::Wait),
            }
        }
    }

    /// Takes in how an action ended. An event that does not fit the phase changes nothing.
    pub fn handle(&mut self, event: Event) {
        let Some(member) = &mut self.membership else { return };
        match (&member.phase, event) {
            (_, Event::Broken { reason, suspect }) => self.leave(Cause::Broken { reason, suspect }),
            (Phase::Joining, Event::Joined) => self.joined(),
            (Phase::Entering, Event::StateReady { is_last }) => {
                let step = member.step;
                self.hold(Some(step));
                self.is_last = is_last;
                self.starts();
            }
            (Phase::Entering, Event::RestoreFailed { damaged, reason }) => {
                let generation = member.generation.number;
                if let Origin::Checkpoint { manifest, .. } = &member.generation.origin {
                    let manifest = manifest.clone();
                    self.reports.push(Report::RestoreFailed { generation, manifest, damaged, reason });
                }
                self.membership = None;
            }
            (Phase::Stepping, Event::Reduced { notes, skipped, computed_in, reduced_in }) => {
                self.reduced(&notes, skipped, computed_in, reduced_in);
            }
            (&Phase::Evaluating(todo), Event::Evaluated { notes }) => self.evaluated(todo, &notes),
            (Phase::Hashing, Event::Hashed { state }) => {
                member.phase = Phase::Completed;
                self.reports.push(Report::Completed {
                    generation: member.generation.number,
                    step: member.step,
                    state,
                    loss: self.loss,
                    val_loss: self.val_loss,
                });
            }
            (_, _) => {}
        }
    }

    /// This worker's note for the all-reduce of its step. `busy`: its slice of the previous checkpoint is still being
    /// uploaded. `losses`: those of its shards, in order. The driver adds their weights if there are any.
    pub fn step_note(&self, requests: &Requests, busy: bool, losses: Vec<f64>) -> StepNote {
        let (asked, met) = match &self.membership {
            Some(member) => (requests.asked_of(member.generation.number), member.asks_met),
            None => Default::default(),
        };
        let (halt, checkpoint) = (asked.halt, asked.checkpoints > met);
        let weights = Vec::new();
        StepNote { halt, checkpoint, busy, last: self.end_wanted.is_some(), losses, weights }
    }

    /// Begins a generation: the first thing is to connect with its members.
    fn begin(&mut self, generation: Arc<Generation>) -> Result<Action, Contradiction> {
        let number = generation.number;
        self.last_generation = number;
        let contradiction = |why: String| Contradiction { generation: number, why };
        let rank = generation.rank_of(self.id);
        let rank = rank.ok_or_else(|| contradiction("this worker is no member of it".into()))?;
        if let Origin::Members { step } = generation.origin {
            let held = self.held.step();
            if (held == Some(step)) != generation.sources().any(|source| source == rank) {
                return Err(contradiction(format!(
                    "it is wrong about this worker, which holds step {held:?}"
                )));
            }
        }
        let (step, phase) = (generation.first_step(), Phase::Joining);
        // The program computes again what it had seen when it wanted the run to end.
        self.end_wanted.take_if(|applied| step < *applied);
        let member = Membership { generation, rank, step, phase, asks_met: 0, save_postponed: false };
        Ok(self.membership.insert(member).join())
    }

    /// Every member is connected: the state comes next.
    fn joined(&mut self) {
        let Some(member) = &mut self.membership else { return };
        match member.generation.origin {
            Origin::Initial if self.held.is_initial() => {
                self.hold(Some(0));
                self.starts();
            }
            Origin::Initial => {
                member.phase = Phase::Uninitialised;
                self.hold(None);
            }
            Origin::Checkpoint { .. } => member.phase = Phase::Entering,
            Origin::Members { step } => {
                let has_transfers = member.get_state() != (Action::SendState { to: Vec::new() });
                let generation = member.generation.number;
                if has_transfers {
                    member.phase = Phase::Entering;
                } else {
                    self.starts();
                }
                if let (true, Some(loss)) = (self.held.step() == Some(step), self.loss) {
                    // The member that was to report the step that led here may have died before it could. The
                    // coordinator ignores a report that it has already.
                    self.reports.push(Report::StepApplied {
                        generation,
                        step,
                        loss,
                        computed_in: Duration::ZERO,
                        reduced_in: Duration::ZERO,
                        skipped: None,
                    });
                }
            }
        }
    }

    /// Does what a boundary needs no driver for; otherwise returns the driver's next action.
    fn at_boundary(&mut self, todo: Todo, requests: &Requests) -> Option<Action> {
        let member = self.membership.as_mut()?;
        if todo.checkpoint {
            member.phase = Phase::Boundary(Todo { checkpoint: false, ..todo });
            let is_last = todo.halt || self.is_last || member.step == self.schedule.steps;
            return Some(member.stage(requests, is_last));
        }
        if todo.evaluate {
            member.phase = Phase::Evaluating(Todo { evaluate: false, ..todo });
        } else if todo.halt {
            self.leave(Cause::Agreed);
            return Some(Action::Leave);
        } else if self.is_last || member.step == self.schedule.steps {
            // A checkpoint that was asked for in the meantime is that of the last step, which was staged.
            member.asks_met = requests.asked_of(member.generation.number).checkpoints;
            member.phase = Phase::Hashing;
        } else {
            member.phase = Phase::Stepping;
        }
        None
    }

    /// The sum is there: combines the notes, and decides on the tasks of the next boundary.
    fn reduced(
        &mut self,
        notes: &[Vec<u8>],
        skipped: Option<String>,
        computed_in: Duration,
        reduced_in: Duration,
    ) {
        let Some(member) = &mut self.membership else { return };
        let agreed = match note::agree(&member.generation, member.step, notes) {
            Ok(agreed) => agreed,
            Err(bad) => return self.leave_for_bad_note(bad),
        };
        let step = member.step + 1;
        let is_last = agreed.last || step == self.schedule.steps;
        let due = agreed.checkpoint || is_last || self.schedule.saves_at(step) || member.save_postponed;
        // Training does not wait for a store: while a member still uploads, all go on, and save once no member does.
        // The last state of a run, or of a generation, is worth the wait.
        let checkpoint = due && (!agreed.busy || agreed.halt || is_last);
        member.save_postponed = due && !checkpoint;
        let evaluate = is_last || self.schedule.evaluates_at(step);
        let todo = Todo { checkpoint, evaluate, halt: agreed.halt };
        let (last, loss, weight) = (agreed.last, agreed.loss, agreed.weight);
        member.phase =
            Phase::Applying(Reduced { todo, last, loss, weight, skipped, computed_in, reduced_in });
    }

    /// The program has applied the sum, or there was none to apply.
    fn applied(&mut self, reduced: Reduced) {
        let Some(member) = &mut self.membership else { return };
        let Reduced { todo, last, loss, skipped, computed_in, reduced_in, .. } = reduced;
        member.step += 1;
        member.phase = Phase::Boundary(todo);
        let (generation, step) = (member.generation.number, member.step);
        if member.rank == 0 {
            let report = Report::StepApplied { generation, step, loss, computed_in, reduced_in, skipped };
            self.reports.push(report);
        }
        self.hold(Some(step));
        self.is_last = last;
        self.loss = Some(loss);
    }

    fn evaluated(&mut self, todo: Todo, notes: &[Vec<u8>]) {
        let Some(member) = &mut self.membership else { return };
        match note::sum_parts(&member.generation, member.step, notes) {
            Err(bad) => self.leave_for_bad_note(bad),
            Ok(val_loss) => {
                member.phase = Phase::Boundary(todo);
                self.val_loss = val_loss;
                if let Some(val_loss) = val_loss.filter(|_| member.rank == 0) {
                    let (generation, step) = (member.generation.number, member.step);
                    self.reports.push(Report::Evaluated { generation, step, val_loss });
                }
            }
        }
    }

    fn leave_for_bad_note(&mut self, BadNote(rank): BadNote) {
        let suspect = self.generation().and_then(|generation| generation.members.get(rank));
        let suspect = suspect.map(|member| member.worker);
        let name = suspect.map_or_else(|| format!("rank {rank}"), |worker| worker.to_string());
        let reason = format!(
            "the note of {name} cannot be read, or has weights where others have none; are all workers of one version?"
        );
        self.leave(Cause::Broken { reason, suspect });
    }

    /// Ends the membership, and reports it.
    fn leave(&mut self, cause: Cause) {
        let Some(member) = self.membership.take() else { return };
        let generation = member.generation.number;
        if member.phase.is_to_stage() {
            // The other members may have staged theirs: the coordinator must not wait for this one.
            let reason = "its generation was left before it was staged".to_owned();
            self.reports.push(Report::SliceFailed { generation, step: member.step, reason });
        }
        self.reports.push(Report::Halted { generation, step: self.held.step(), cause });
    }

    /// This member holds the state that its generation starts from.
    fn starts(&mut self) {
        let Some(member) = &mut self.membership else { return };
        let is_last = self.is_last || member.step == self.schedule.steps;
        member.phase = Phase::Boundary(member.first_tasks(self.schedule, is_last));
    }

    /// Records which state the program holds from now on.
    fn hold(&mut self, step: Option<u64>) {
        let held = step.map_or(Held::Nothing, Held::Step);
        if held != self.held {
            // They belong to the state held before.
            self.loss = None;
            self.is_last = false;
        }
        self.held = held;
    }
}

impl Membership {
    fn join(&self) -> Action {
        Action::Join { generation: Arc::clone(&self.generation), rank: self.rank }
    }

    /// The shards of the next step that this worker computes; the parts of an evaluation are assigned alike.
    fn assignment(&self) -> Range<u32> {
        self.generation.assignment(self.rank, self.step)
    }

    /// How this member gets the state that its generation starts from, or gives it to those that lack it.
    fn get_state(&self) -> Action {
        if let Origin::Checkpoint { step, manifest } = &self.generation.origin {
            return Action::Restore { step: *step, manifest: manifest.clone() };
        }
        let transfers = self.generation.transfers();
        match transfers.iter().find(|(_, receiver)| *receiver == self.rank) {
            Some(&(from, _)) => Action::ReceiveState { from },
            None => {
                let to = transfers.iter().filter(|(source, _)| *source == self.rank);
                Action::SendState { to: to.map(|(_, receiver)| *receiver).collect() }
            }
        }
    }

    /// The tasks of the boundary at which the generation starts. A model that is due for it is evaluated, though an earlier
    /// generation may have done so: the members that join do not know the result. A run that restarts after its last step,
    /// `is_last`, is saved unless it comes from a checkpoint.
    fn first_tasks(&self, schedule: Schedule, is_last: bool) -> Todo {
        let from_checkpoint = matches!(self.generation.origin, Origin::Checkpoint { .. });
        let evaluate = is_last || self.step > 0 && schedule.evaluates_at(self.step);
        Todo { checkpoint: is_last && !from_checkpoint, evaluate, halt: false }
    }

    /// Stages a slice, which meets the checkpoints asked for so far. `is_last`: no step is taken after it.
    fn stage(&mut self, requests: &Requests, is_last: bool) -> Action {
        let generation = self.generation.number;
        self.asks_met = requests.asked_of(generation).met_by_one_now(is_last);
        let (rank, slices) = (self.rank, self.generation.members.len());
        Action::Stage { generation, step: self.step, rank, slices }
    }
}
