//! A run as the core sees it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use whimbrel_plan::{NodeId, RunId, WorkerId};

use crate::{
    checkpoints::Saves,
    command::{Command, Notice},
    event::RunEvent,
    facts::{Past, RunFacts, Start, Timing},
    fleet::{Preparation, Slot},
    generations::Live,
    interval::{Experience, Interval},
    lifecycle::Intent,
    view::Phase,
};

/// A run under this coordinator.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) facts: RunFacts,
    pub(crate) timing: Timing,
    pub(crate) epoch: u64,
    /// Where the state is when no worker holds it; `None` while a damaged checkpoint is being put aside.
    pub(crate) start: Option<Start>,
    /// Slots of nodes that this run has, by rank.
    pub(crate) slots: BTreeMap<u32, Slot>,
    /// How far each of its nodes is with `setup`.
    pub(crate) nodes: BTreeMap<NodeId, Preparation>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) last_worker: u64,
    /// The generation that trains, if one does.
    pub(crate) live: Option<Live>,
    pub(crate) last_generation: u64,
    /// Since when the run has been without a whole generation.
    pub(crate) gap_since: Duration,
    /// Most steps ever applied.
    pub(crate) high: u64,
    /// Most steps that watchers were told of since the state was last restored.
    pub(crate) told: u64,
    pub(crate) loss: Option<f64>,
    pub(crate) val_loss: Option<f64>,
    pub(crate) saves: Saves,
    /// What saves cost and how often the membership was lost.
    pub(crate) experience: Experience,
    /// The interval last announced.
    pub(crate) interval_told: Option<Interval>,
    /// Failures in a row to read a checkpoint because the store was out of reach.
    pub(crate) restore_failures: u32,
    /// How `setup` failed on a node just now, and its last lines.
    pub(crate) setup_failure: Option<(String, Vec<String>)>,
    pub(crate) intent: Intent,
    /// Generations in a row that broke before they applied a step.
    pub(crate) no_progress: u32,
    /// The phase last announced.
    pub(crate) announced: Option<(Phase, String)>,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) rank: u32,
    pub(crate) node: NodeId,
    pub(crate) pid: Option<u32>,
    pub(crate) state: WorkerState,
    pub(crate) heard: Duration,
    /// Where its peers reach it, once it is ready.
    pub(crate) address: Option<SocketAddr>,
    /// Most steps it has seen applied as a member.
    pub(crate) reached: u64,
    /// Given up, its process is killed then, if it has not ended by itself.
    pub(crate) kill_at: Option<Duration>,
    /// What it, or the core, said of its failure.
    pub(crate) failure: Option<String>,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// Told to start, not ready yet.
    Starting {
        /// Since when.
        since: Duration,
    },
    /// Ready to be a member, with the state after so many steps, if any.
    Ready {
        /// Steps applied to the state it holds.
        holds: Option<u64>,
        /// Since when.
        since: Duration,
    },
    /// In the live generation.
    Member,
    /// Told to end.
    Leaving {
        /// Since when.
        since: Duration,
    },
    /// Not to be used any more; its process has yet to end.
    Lost,
}

impl Run {
    pub(crate) fn new(
        id: RunId,
        facts: RunFacts,
        timing: Timing,
        epoch: u64,
        start: Start,
        past: Past,
        now: Duration,
    ) -> Self {
        Self {
            id,
            timing,
            epoch,
            high: start.step(),
            saves: Saves::new(&start, now),
            experience: Experience::new(past),
            interval_told: None,
            facts,
            start: Some(start),
            slots: BTreeMap::new(),
            nodes: BTreeMap::new(),
            workers: BTreeMap::new(),
            last_worker: 0,
            live: None,
            last_generation: 0,
            gap_since: now,
            told: 0,
            loss: None,
            val_loss: None,
            restore_failures: 0,
            setup_failure: None,
            intent: Intent::Train,
            no_progress: 0,
            announced: None,
        }
    }

    /// Takes note of what happened. Deciding what follows from it is left to [`reconcile`](Self::reconcile).
    pub(crate) fn take(&mut self, now: Duration, event: RunEvent, out: &mut Vec<Command>) {
        if self.has_ended() {
            return self.take_after_the_end(now, event, out);
        }
        match event {
            RunEvent::Prepared { node } => self.prepared(node),
            RunEvent::PrepareFailed { node, reason, tail } => self.prepare_failed(node, &reason, tail),
            RunEvent::WorkerStarted { worker, pid } => self.worker_started(worker, pid, out),
            RunEvent::WorkerReady { worker, address } => self.worker_ready(now, worker, address),
            RunEvent::WorkerHeard { worker, step } => self.worker_heard(now, worker, step),
            RunEvent::WorkerDisconnected { worker } => self.part_with(now, worker, out),
            RunEvent::WorkerLost { worker, reason } => self.lose(now, worker, &reason, out),
            RunEvent::TrainerFailed { worker, reason } => self.trainer_failed(worker, reason),
            RunEvent::WorkerExited { worker, exit, tail } => self.worker_exited(now, worker, exit, tail, out),
            RunEvent::StepApplied { worker, generation, step, loss } => {
                self.step_applied(now, worker, generation, step, loss, out);
            }
            RunEvent::Evaluated { step, val_loss } => {
                self.val_loss = Some(val_loss);
                self.announce(Notice::Evaluated { step, val_loss }, out);
            }
            RunEvent::Halted { worker, generation, step, cause } => {
                self.halted(now, worker, generation, step, cause, out);
            }
            RunEvent::SliceSaved { worker, generation, step } => {
                self.slice_saved(now, worker, generation, step, out);
            }
            RunEvent::SliceFailed { worker, generation, step, reason } => {
                self.slice_failed(now, worker, generation, step, &reason, out);
            }
            RunEvent::Committed { step, manifest, cost } => {
                self.committed(step, manifest, cost);
                self.announce_interval(now, out);
            }
            RunEvent::CommitFailed { step, reason } => self.commit_failed(now, step, &reason, out),
            RunEvent::Completed { worker, generation, state, loss, val_loss } => {
                self.completed(now, worker, generation, state, loss, val_loss, out);
            }
            RunEvent::RestoreFailed { worker, generation, manifest, damaged, reason } => {
                self.restore_failed(now, worker, generation, &manifest, damaged, &reason, out);
            }
            RunEvent::Quarantined { start } => self.quarantined(start),
            // Nothing was to be recorded.
            RunEvent::EndRecorded => {}
            RunEvent::TermLost { reason } => self.term_lost(reason, out),
            RunEvent::StopRequested { record } => self.stop_requested(now, record),
            RunEvent::CancelRequested => self.cancel_requested(),
        }
    }

    /// With the end decided, all that still matters is that it is recorded and that the processes end.
    fn take_after_the_end(&mut self, now: Duration, event: RunEvent, out: &mut Vec<Command>) {
        match event {
            RunEvent::WorkerStarted { worker, pid } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.pid = Some(pid);
                }
            }
            RunEvent::WorkerExited { worker, exit, tail } => self.worker_exited(now, worker, exit, tail, out),
            RunEvent::Committed { step, manifest, cost } => self.committed(step, manifest, cost),
            RunEvent::EndRecorded => self.end_recorded(out),
            RunEvent::TermLost { reason } => self.term_lost(reason, out),
            _ => {}
        }
    }

    /// Looks at how things stand and does what follows: the one place that asks "what now?". Called after every event,
    /// and idempotent: called twice, the second time finds nothing to do.
    pub(crate) fn reconcile(&mut self, now: Duration, out: &mut Vec<Command>) {
        if !self.has_ended() {
            self.do_without_setup(out);
            self.lose_the_silent(now, out);
            self.lose_slow_savers(now, out);
            self.start_workers(now, out);
            self.tend_generation(now, out);
            self.ask_for_checkpoint(now, out);
            self.come_to_an_end(now, out);
        }
        self.clear_out(now, out);
        self.kill_the_lingering(now, out);
        self.announce_phase(out);
    }

    pub(crate) fn announce(&self, notice: Notice, out: &mut Vec<Command>) {
        out.push(Command::Announce { run: self.id.clone(), notice });
    }

    pub(crate) fn warn(&self, text: String, tail: Vec<String>, out: &mut Vec<Command>) {
        self.announce(Notice::Warning { text, tail }, out);
    }

    pub(crate) fn expects(&self, worker: WorkerId) -> bool {
        let state = self.workers.get(&worker).map(|worker| worker.state);
        state.is_some_and(|state| state != WorkerState::Lost)
    }

    pub(crate) fn announce_phase(&mut self, out: &mut Vec<Command>) {
        let now = self.phase();
        if self.announced.as_ref() != Some(&now) {
            let (phase, detail) = now.clone();
            self.announced = Some(now);
            self.announce(Notice::Phase { phase, detail }, out);
        }
    }
}
