//! A run: four state machines, the facts that move between them, and the one place that asks "what now?".
//!
//! | machine | holds |
//! | --- | --- |
//! | [`Fleet`] | slots, `setup` on nodes, workers and their processes |
//! | [`Generations`] | the live generation, halts, breaks, and how far the run has got |
//! | [`Checkpoints`] | slices, commits, the newest checkpoint, and when the next is due |
//! | [`Lifecycle`] | what the run is to do, and how it ends |
//!
//! [`Run::take`] gives an event to the machine that it concerns, [`Run::apply`] moves the effects to the others, and
//! [`Run::reconcile`] decides what follows.

use std::time::Duration;

use whimbrel_plan::{NodeId, RunId, WorkerId};

use crate::{
    checkpoints::Checkpoints,
    command::Command,
    event::{Exit, RunEvent},
    facts::{EarlierTerms, RunFacts, Start},
    fleet::{Fleet, Loss},
    generations::{Generations, Halt, Ingredients, Remedy},
    lifecycle::{Lifecycle, Status},
    machine::{Context, Effect, Effects, RestoreFailure},
    phase::Phase,
    timing::Timing,
    view::RunView,
};

/// A run under this coordinator.
#[derive(Debug)]
pub(crate) struct Run {
    cx: Context,
    epoch: u64,
    fleet: Fleet,
    generations: Generations,
    checkpoints: Checkpoints,
    lifecycle: Lifecycle,
}

/// What a coordinator opens a run with.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) run: RunId,
    pub(crate) facts: RunFacts,
    pub(crate) epoch: u64,
    pub(crate) start: Start,
    pub(crate) earlier: EarlierTerms,
}

impl Run {
    pub(crate) fn new(opening: Opening, timing: Timing, now: Duration) -> Self {
        let Opening { run, facts, epoch, start, earlier } = opening;
        Self {
            epoch,
            fleet: Fleet::default(),
            generations: Generations::new(&start, now),
            checkpoints: Checkpoints::new(start, earlier, now),
            lifecycle: Lifecycle::new(),
            cx: Context { now, run, facts, timing },
        }
    }

    /// Takes over the processes of the same run under an earlier epoch.
    pub(crate) fn inherit(&mut self, before: Self) {
        self.fleet.inherit(before.fleet, self.cx.now);
    }

    pub(crate) fn slots_on(&self, node: NodeId) -> u32 {
        self.fleet.slots_on(node)
    }

    pub(crate) fn wants_slot(&self, node: NodeId) -> bool {
        self.lifecycle.is_training() && self.fleet.wants_slot(node, self.cx.facts.workers_max)
    }

    pub(crate) fn add_slot(&mut self, node: NodeId) {
        self.fleet.add_slot(node);
    }

    /// Whether the core started that worker and has not lost it.
    pub(crate) fn expects(&self, worker: WorkerId) -> bool {
        self.fleet.expects(worker)
    }
}

/// Events in.
impl Run {
    /// A node is gone, and every process on it.
    pub(crate) fn node_lost(&mut self, now: Duration, node: NodeId, reason: &str, out: &mut Vec<Command>) {
        for worker in self.fleet.workers_on(node) {
            let exit = Exit::NodeLost(reason.to_owned());
            self.take(now, RunEvent::WorkerExited { worker, exit, tail: Vec::new() }, out);
        }
        self.fleet.forget_node(node);
    }

    /// Records what happened. What follows from it is decided in [`reconcile`](Self::reconcile).
    pub(crate) fn take(&mut self, now: Duration, event: RunEvent, out: &mut Vec<Command>) {
        self.cx.now = now;
        let effects = if self.lifecycle.has_ended() {
            self.dispatch_after_the_end(event)
        } else {
            self.dispatch(event)
        };
        self.apply(effects, out);
    }

    fn dispatch(&mut self, event: RunEvent) -> Effects {
        let cx = &self.cx;
        match event {
            RunEvent::Prepared { node } => self.fleet.setup_succeeded(node),
            RunEvent::PrepareFailed { node, reason, tail } => self.fleet.setup_failed(node, &reason, tail),
            RunEvent::WorkerStarted { worker, pid } => return self.fleet.worker_started(cx, worker, pid),
            RunEvent::WorkerReady { worker, address } => self.fleet.worker_ready(cx.now, worker, address),
            RunEvent::WorkerHeartbeat { worker, step } => {
                return self.fleet.worker_heartbeat(cx.now, worker, step);
            }
            RunEvent::WorkerDisconnected { worker } => {
                return self.fleet.declare_lost(cx, worker, Loss::Disconnected);
            }
            RunEvent::WorkerLost { worker, reason } => {
                return self.fleet.declare_lost(cx, worker, Loss::Unusable(reason));
            }
            RunEvent::TrainerFailed { worker, reason, fatal } => {
                self.fleet.trainer_failed(worker, reason, fatal);
            }
            RunEvent::WorkerExited { worker, exit, tail } => {
                return self.fleet.worker_exited(cx, worker, exit, tail, false);
            }
            RunEvent::StepApplied { worker, generation, step, loss } => {
                return self.generations.step_applied(cx, worker, generation, step, loss);
            }
            RunEvent::Evaluated { step, val_loss } => return self.generations.evaluated(cx, step, val_loss),
            RunEvent::Halted { worker, generation, step, cause } => {
                return self.generations.halted(cx, worker, generation, step, cause);
            }
            RunEvent::Completed { worker, generation, completion } => {
                return self.generations.completed(cx, worker, generation, completion);
            }
            RunEvent::RestoreFailed { worker, generation, manifest, damaged, reason } => {
                let failure = RestoreFailure { manifest, damaged, reason };
                return self.generations.restore_failed(cx.now, worker, generation, failure);
            }
            RunEvent::SliceSaved { worker, generation, step } => {
                return self.checkpoints.slice_saved(cx, worker, generation, step);
            }
            RunEvent::SliceFailed { worker, generation, step, reason } => {
                let (key, stopping) = ((generation, step), self.lifecycle.is_stopping());
                return self.checkpoints.slice_failed(cx, key, worker, &reason, stopping);
            }
            RunEvent::Committed { step, manifest, cost } => {
                self.checkpoints.committed(step, manifest, cost);
                return self.checkpoints.announce_interval(cx);
            }
            RunEvent::CommitFailed { step, reason } => {
                return self.checkpoints.commit_failed(cx, step, &reason, self.lifecycle.is_stopping());
            }
            RunEvent::Quarantined { start } => {
                self.generations.fall_back_to(&start);
                self.checkpoints.quarantined(start);
            }
            // The run has not ended: no end was to be recorded.
            RunEvent::EndRecorded => {}
            RunEvent::TermLost { reason } => {
                let status = self.status();
                return self.lifecycle.term_lost(&self.cx, &status, reason);
            }
            RunEvent::StopRequested { record } => self.lifecycle.stop_requested(cx.now, record),
            RunEvent::CancelRequested => self.lifecycle.cancel_requested(),
        }
        Effects::new()
    }

    /// Once the end is decided, two things matter: that it is recorded, and that the processes end.
    fn dispatch_after_the_end(&mut self, event: RunEvent) -> Effects {
        let cx = &self.cx;
        match event {
            RunEvent::WorkerStarted { worker, pid } => {
                // The process is about to end: its start is not announced.
                drop(self.fleet.worker_started(cx, worker, pid));
                Effects::new()
            }
            RunEvent::WorkerExited { worker, exit, tail } => {
                self.fleet.worker_exited(cx, worker, exit, tail, true)
            }
            RunEvent::Committed { step, manifest, cost } => {
                self.checkpoints.committed(step, manifest, cost);
                Effects::new()
            }
            RunEvent::EndRecorded => self.lifecycle.end_recorded(cx),
            RunEvent::TermLost { reason } => {
                let status = self.status();
                self.lifecycle.term_lost(&self.cx, &status, reason)
            }
            _ => Effects::new(),
        }
    }

    /// Passes commands on to the driver, and moves what one machine found out to the machines that need it.
    fn apply(&mut self, effects: Effects, out: &mut Vec<Command>) {
        for effect in effects {
            let further = match effect {
                Effect::Command(command) => {
                    out.push(command);
                    continue;
                }
                Effect::WorkerLost(worker) => {
                    let members = self.generations.worker_lost(self.cx.now, worker);
                    self.checkpoints.worker_lost(&self.cx, worker, members)
                }
                Effect::StepReached(step) => {
                    if self.generations.reach_step(self.cx.now, step) {
                        self.checkpoints.progressed();
                    }
                    continue;
                }
                Effect::GenerationFormed { number, members } => {
                    self.fleet.generation_formed(self.cx.now, &members);
                    self.checkpoints.generation_formed(self.cx.now, number, &members);
                    continue;
                }
                Effect::StepApplied { reporter, members, step } => {
                    self.fleet.step_applied(self.cx.now, reporter, &members, step);
                    continue;
                }
                Effect::MemberLeft { worker, generation, step, staged, saves_through } => {
                    self.fleet.member_left(self.cx.now, worker, step);
                    let mut further =
                        self.checkpoints.member_left(&self.cx, worker, generation, saves_through);
                    if let Some(step) = step {
                        further.push(Effect::StepReached(step));
                        if staged {
                            further.append(self.checkpoints.member_staged(&self.cx, generation, step));
                        }
                    }
                    further
                }
                Effect::RestoreFailed(failure) => self.checkpoints.restore_failed(&self.cx, failure),
                Effect::MemberCompleted { generation, step, all } => {
                    self.checkpoints.member_completed(&self.cx, (generation, step), all)
                }
                Effect::Fail { reason, tail } => {
                    let status = self.status();
                    self.lifecycle.fail(&self.cx, &status, reason, tail)
                }
            };
            self.apply(further, out);
        }
    }
}

/// What now?
impl Run {
    /// Compares how the run is with how it should be, and acts on the difference. Called after every event, and
    /// idempotent: a second call at the same time finds nothing to do.
    pub(crate) fn reconcile(&mut self, now: Duration, out: &mut Vec<Command>) {
        self.cx.now = now;
        if !self.lifecycle.has_ended() {
            self.reconcile_fleet(out);
            self.reconcile_generation(out);
            let askable = self.generations.askable(self.cx.facts.steps);
            let effects = self.checkpoints.ask_if_due(&self.cx, askable);
            self.apply(effects, out);
            let status = self.status();
            let effects = self.lifecycle.end_if_due(&self.cx, &status);
            self.apply(effects, out);
        }
        if let Some(reason) = self.lifecycle.end_reason() {
            self.generations.disband();
            let effects = self.fleet.disband(&self.cx, reason);
            self.apply(effects, out);
        }
        let effects = self.fleet.kill_overdue_processes(&self.cx);
        self.apply(effects, out);
        let effects = self.lifecycle.announce_phase(&self.cx, self.phase());
        self.apply(effects, out);
    }

    /// Loses workers that missed a deadline, and starts workers in free slots.
    fn reconcile_fleet(&mut self, out: &mut Vec<Command>) {
        let effects = self.fleet.handle_failed_setup(&self.cx);
        self.apply(effects, out);
        let effects = self.fleet.lose_overdue_workers(&self.cx);
        self.apply(effects, out);
        self.lose(self.checkpoints.overdue_members(&self.cx), out);
        if self.lifecycle.is_training() {
            let effects = self.fleet.start_due_workers(&self.cx);
            self.apply(effects, out);
        }
    }

    /// Sees to the live generation, and forms the next if there is none.
    fn reconcile_generation(&mut self, out: &mut Vec<Command>) {
        self.lose(self.generations.stuck_members(&self.cx), out);
        match self.generations.end_if_empty(self.cx.facts.max_failures) {
            Some(Remedy::Lose(worker, reason)) => self.lose(vec![(worker, reason)], out),
            Some(Remedy::Fail(reason)) => {
                let mut effects = Effects::new();
                effects.fail(reason, Vec::new());
                self.apply(effects, out);
            }
            None => {}
        }
        self.form_generation(out);
        if !self.generations.is_live() {
            self.checkpoints.training_paused(self.cx.now);
        }
        let halt = if self.lifecycle.is_stopping() {
            Some(Halt::ToStop)
        } else {
            let admit = self.generations.has_room(&self.cx) && self.fleet.is_gathered(&self.cx);
            admit.then_some(Halt::ToAdmit)
        };
        let effects = self.generations.interrupt_or_halt(&self.cx, halt);
        self.apply(effects, out);
    }

    fn form_generation(&mut self, out: &mut Vec<Command>) {
        if self.generations.is_live() || !self.lifecycle.may_form(&self.status()) {
            return;
        }
        // While a damaged checkpoint is being quarantined, there is nothing to start from.
        let Some(start) = self.checkpoints.start() else { return };
        let stopping = self.lifecycle.is_stopping();
        let ingredients = Ingredients {
            candidates: self.fleet.candidates(),
            gathered: self.fleet.is_gathered(&self.cx),
            start,
            committing: self.checkpoints.is_committing(),
            // One worker is enough to save what the run has computed.
            workers_min: if stopping { 1 } else { self.cx.facts.workers_min.max(1) },
        };
        let effects = self.generations.form(&self.cx, ingredients);
        self.apply(effects, out);
    }

    /// Declares workers lost, each for a reason.
    fn lose(&mut self, workers: Vec<(WorkerId, String)>, out: &mut Vec<Command>) {
        for (worker, reason) in workers {
            let effects = self.fleet.declare_lost(&self.cx, worker, Loss::Unusable(reason));
            self.apply(effects, out);
        }
    }
}

/// Questions.
impl Run {
    /// The run as the lifecycle must see it.
    fn status(&self) -> Status {
        Status {
            results: self.generations.results(),
            final_state: self.generations.final_state(),
            has_generation: self.generations.is_live(),
            held_step: self.fleet.held_step(),
            committed_step: self.checkpoints.newest_step(),
            is_saving: self.checkpoints.is_under_way(),
            is_save_refused: self.checkpoints.is_refused(self.cx.facts.max_failures),
            save_failure: self.checkpoints.failure().map(|failure| failure.reason.clone()),
        }
    }

    /// What the run is doing, and why: the first machine that knows says so.
    fn phase(&self) -> (Phase, String) {
        let known = self.lifecycle.phase().or_else(|| self.generations.phase());
        let known = known.or_else(|| self.checkpoints.phase());
        known.unwrap_or_else(|| self.fleet.phase(self.cx.facts.workers_min))
    }

    pub(crate) fn view(&self) -> RunView {
        let (phase, detail) = self.phase();
        let results = self.generations.results();
        RunView {
            phase,
            detail,
            step: results.step,
            generation: self.generations.last_number(),
            epoch: self.epoch,
            workers: self.fleet.views(&self.generations.shares()),
            loss: results.loss,
            val_loss: results.val_loss,
            checkpoint: self.checkpoints.newest_step(),
            interval: self.checkpoints.interval(&self.cx),
            save_failure: self.checkpoints.failure().cloned(),
        }
    }
}
