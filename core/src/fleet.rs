//! The fleet of a run: the slots that it has been given, `setup` on their nodes, and the workers and their processes.
//!
//! [`Fleet::declare_lost`] is the one place where a worker is declared lost, whatever the evidence was.

mod setup;
mod slot;
mod worker;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use whimbrel_plan::{NodeId, WorkerId};

use self::{
    setup::{NextStep, Setup},
    slot::Slot,
    worker::{Worker, WorkerState},
};
use crate::{
    command::{Command, Notice},
    event::Exit,
    machine::{Candidate, Context, Effect, Effects},
    phase::Phase,
    view::WorkerView,
};

/// The worker name under which an agent knows a run's `setup`.
const SETUP: WorkerId = WorkerId(0);

/// The slots, nodes and workers of a run.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    /// By rank.
    slots: BTreeMap<u32, Slot>,
    setup: Setup,
    workers: BTreeMap<WorkerId, Worker>,
    last_worker: u64,
}

/// Why a worker is lost, and so what becomes of its process.
#[derive(Clone, Debug)]
pub(crate) enum Loss {
    /// It must not be used, for this reason: its process is killed.
    Unusable(String),
    /// Its connection has ended. Most likely its process is ending too; it gets the time to, so that the core sees its
    /// own exit code.
    Disconnected,
    /// Its process has ended.
    Exited,
}

/// Slots.
impl Fleet {
    /// Takes over the processes of the same run under an earlier epoch: they are to leave, they keep their slots until
    /// they have ended, and their names are not used again.
    pub(crate) fn inherit(&mut self, before: Self, now: Duration) {
        self.last_worker = before.last_worker;
        self.workers = before.workers;
        for worker in self.workers.values_mut().filter(|worker| worker.is_in_service()) {
            worker.state = WorkerState::Leaving { since: now };
        }
        let occupied = before.slots.into_iter().filter(|(_, slot)| slot.worker().is_some());
        self.slots = occupied.map(|(rank, slot)| (rank, Slot::new(slot.node(), slot.worker()))).collect();
    }

    pub(crate) fn slots_on(&self, node: NodeId) -> u32 {
        self.slots.values().filter(|slot| slot.node() == node).count() as u32
    }

    pub(crate) fn wants_slot(&self, node: NodeId, workers_max: u32) -> bool {
        self.slots_in_use() < workers_max as usize && !self.setup.has_failed_on(node)
    }

    pub(crate) fn add_slot(&mut self, node: NodeId) {
        let rank = (0..).find(|rank| !self.slots.contains_key(rank)).unwrap_or(u32::MAX);
        self.slots.insert(rank, Slot::new(node, None));
    }

    fn slots_in_use(&self) -> usize {
        self.slots.values().filter(|slot| slot.is_in_use()).count()
    }

    /// The workers on a node.
    pub(crate) fn workers_on(&self, node: NodeId) -> Vec<WorkerId> {
        let on_node = |worker: &Worker| worker.node == node;
        self.workers.iter().filter(|(_, worker)| on_node(worker)).map(|(&id, _)| id).collect()
    }

    pub(crate) fn forget_node(&mut self, node: NodeId) {
        self.slots.retain(|_, slot| slot.node() != node);
        self.setup.forget(node);
    }
}

/// `setup`, and the start of workers.
impl Fleet {
    pub(crate) fn setup_succeeded(&mut self, node: NodeId) {
        self.setup.succeeded(node);
    }

    pub(crate) fn setup_failed(&mut self, node: NodeId, reason: &str, tail: Vec<String>) {
        if self.setup.failed(node, reason, tail) {
            self.slots.retain(|_, slot| slot.node() != node);
        }
    }

    /// Goes on without a node whose `setup` just failed, or fails the run if no other node has given it a slot.
    pub(crate) fn handle_failed_setup(&mut self, cx: &Context) -> Effects {
        let mut effects = Effects::new();
        let Some((reason, tail)) = self.setup.take_failure() else { return effects };
        if self.slots.is_empty() {
            effects.fail(reason, tail);
        } else {
            effects.warn(cx, format!("{reason}; the run goes on without that node"), tail);
        }
        effects
    }

    /// Starts a worker in each slot that is due one, once `setup` has succeeded on its node.
    pub(crate) fn start_due_workers(&mut self, cx: &Context) -> Effects {
        let mut effects = Effects::new();
        for (&rank, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_due(cx.now)) {
            let (run, node) = (cx.run.clone(), slot.node());
            match self.setup.advance(node, cx.facts.has_setup) {
                NextStep::RunSetup => effects.command(Command::Prepare { run, node }),
                NextStep::StartWorker => {
                    self.last_worker += 1;
                    let worker = WorkerId(self.last_worker);
                    slot.occupy(worker);
                    self.workers.insert(worker, Worker::starting(rank, node, cx.now));
                    effects.command(Command::Start { run, node, worker });
                }
                NextStep::Wait => {}
            }
        }
        effects
    }
}

/// What workers and their agents report.
impl Fleet {
    pub(crate) fn worker_started(&mut self, cx: &Context, id: WorkerId, pid: u32) -> Effects {
        let mut effects = Effects::new();
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.pid = Some(pid);
            let (rank, node) = (worker.rank, worker.node);
            effects.announce(cx, Notice::WorkerStarted { rank, worker: id, pid, node });
        }
        effects
    }

    pub(crate) fn worker_ready(&mut self, now: Duration, id: WorkerId, address: SocketAddr) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_starting()) {
            worker.state = WorkerState::Ready { holds: None, since: now };
            worker.address = Some(address);
            worker.heard = now;
        }
    }

    pub(crate) fn worker_heartbeat(&mut self, now: Duration, id: WorkerId, step: u64) -> Effects {
        let mut effects = Effects::new();
        let Some(worker) = self.workers.get_mut(&id) else { return effects };
        worker.heard = now;
        if worker.state == WorkerState::Member {
            worker.reached = worker.reached.max(step);
            effects.push(Effect::StepReached(step));
        }
        effects
    }

    /// The worker explains why its process is about to end. With `fatal`, the run fails once it has ended.
    pub(crate) fn trainer_failed(&mut self, id: WorkerId, reason: String, fatal: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.failure = Some(reason);
            worker.is_fatal |= fatal;
        }
    }

    /// A worker's process has ended. Unless that was expected, its slot counts a failure and plans the next start. With
    /// `run_ended`, every exit is expected.
    pub(crate) fn worker_exited(
        &mut self,
        cx: &Context,
        id: WorkerId,
        exit: Exit,
        tail: Vec<String>,
        run_ended: bool,
    ) -> Effects {
        let leaving = |worker: &Worker| matches!(worker.state, WorkerState::Leaving { .. });
        let expected = run_ended || self.workers.get(&id).is_some_and(leaving);
        let mut effects = if expected { Effects::new() } else { self.declare_lost(cx, id, Loss::Exited) };
        let Some(worker) = self.workers.remove(&id) else { return effects };
        let (reason, tail) = if expected { (None, Vec::new()) } else { (worker.failure, tail) };
        let (rank, node, pid) = (worker.rank, worker.node, worker.pid);
        let notice = Notice::WorkerExited {
            rank,
            worker: id,
            pid,
            node,
            exit: exit.clone(),
            reason: reason.clone(),
            tail: tail.clone(),
        };
        effects.announce(cx, notice);
        let Some(slot) = self.slots.get_mut(&rank) else { return effects };
        slot.vacate();
        if expected {
            return effects;
        }
        let is_node_lost = matches!(exit, Exit::NodeLost(_));
        let what = reason.map_or_else(|| exit.to_string(), |reason| format!("{reason} ({exit})"));
        if worker.is_fatal {
            effects
                .fail(format!("worker {id} (rank {rank}) failed, and a retry would fail too: {what}"), tail);
        } else if !is_node_lost && let Some(failures) = slot.count_failure(cx, worker.reached) {
            let text = format!(
                "worker {id} (rank {rank}) failed {failures} times in a row without progress: {what}"
            );
            if self.slots_in_use() < cx.facts.workers_min.max(1) as usize {
                effects.fail(text, tail);
            } else {
                effects.warn(cx, format!("{text}; its slot stays empty"), tail);
            }
        }
        effects
    }
}

/// Workers that are lost or must go.
impl Fleet {
    /// Declares a worker lost: the run goes on without it, and its slot is free once its process has ended. Does nothing
    /// for a worker that is lost already or was told to leave.
    pub(crate) fn declare_lost(&mut self, cx: &Context, id: WorkerId, loss: Loss) -> Effects {
        let mut effects = Effects::new();
        let in_service = self.workers.get_mut(&id).filter(|worker| worker.is_in_service());
        let Some(worker) = in_service else { return effects };
        worker.state = WorkerState::Lost;
        effects.push(Effect::WorkerLost(id));
        match loss {
            Loss::Unusable(reason) => {
                worker.failure.get_or_insert(reason);
                effects.command(Command::Kill { run: cx.run.clone(), node: worker.node, worker: id });
            }
            Loss::Disconnected => worker.kill_at = Some(cx.now + cx.timing.exit_timeout),
            Loss::Exited => {}
        }
        effects
    }

    /// Declares workers lost that did not become ready, or sent no heartbeat, in time.
    pub(crate) fn lose_overdue_workers(&mut self, cx: &Context) -> Effects {
        let missed =
            |(&id, worker): (&WorkerId, &Worker)| Some((id, worker.missed_deadline(cx.now, &cx.timing)?));
        let overdue: Vec<(WorkerId, String)> = self.workers.iter().filter_map(missed).collect();
        let mut effects = Effects::new();
        for (id, reason) in overdue {
            effects.append(self.declare_lost(cx, id, Loss::Unusable(reason)));
        }
        effects
    }

    /// The run has ended: its workers are told to leave, and what has not started yet is killed. Free slots are given
    /// back.
    pub(crate) fn disband(&mut self, cx: &Context, reason: &str) -> Effects {
        let mut effects = Effects::new();
        for node in self.setup.abort() {
            effects.command(Command::Kill { run: cx.run.clone(), node, worker: SETUP });
        }
        for (&id, worker) in &mut self.workers {
            let (run, node) = (cx.run.clone(), worker.node);
            match worker.state {
                WorkerState::Ready { .. } | WorkerState::Member => {
                    worker.state = WorkerState::Leaving { since: cx.now };
                    effects.command(Command::Leave { run, worker: id, reason: reason.to_owned() });
                }
                WorkerState::Starting { .. } => {
                    worker.state = WorkerState::Lost;
                    effects.command(Command::Kill { run, node, worker: id });
                }
                WorkerState::Leaving { .. } | WorkerState::Lost => {}
            }
        }
        self.slots.retain(|_, slot| slot.worker().is_some());
        effects
    }

    /// Kills the processes that should have ended by now: their workers were told to leave, or have disconnected.
    pub(crate) fn kill_overdue_processes(&mut self, cx: &Context) -> Effects {
        let mut effects = Effects::new();
        for (&id, worker) in &mut self.workers {
            if worker.is_overdue(cx.now, cx.facts.leave_timeout) {
                worker.state = WorkerState::Lost;
                worker.kill_at = None;
                effects.command(Command::Kill { run: cx.run.clone(), node: worker.node, worker: id });
            }
        }
        effects
    }
}

/// What happens in generations, as far as workers remember it.
impl Fleet {
    pub(crate) fn generation_formed(&mut self, now: Duration, members: &[WorkerId]) {
        for id in members {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.state = WorkerState::Member;
                worker.heard = now;
            }
        }
    }

    /// The members have applied a step, as one of them reports.
    pub(crate) fn step_applied(
        &mut self,
        now: Duration,
        reporter: WorkerId,
        members: &[WorkerId],
        step: u64,
    ) {
        for member in members {
            if let Some(member) = self.workers.get_mut(member) {
                // When one member applies a step, every other one has applied at least the step before.
                member.reached = member.reached.max(step.saturating_sub(1));
            }
        }
        if let Some(worker) = self.workers.get_mut(&reporter) {
            worker.reached = worker.reached.max(step);
            worker.heard = now;
        }
    }

    /// A member has left its generation with the state after `step` steps, if it holds one.
    pub(crate) fn member_left(&mut self, now: Duration, id: WorkerId, step: Option<u64>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.state = WorkerState::Ready { holds: step, since: now };
            worker.heard = now;
            worker.reached = worker.reached.max(step.unwrap_or(0));
        }
    }
}

/// Questions.
impl Fleet {
    /// Whether the core started that worker and has not lost it.
    pub(crate) fn expects(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.state != WorkerState::Lost)
    }

    /// The ready workers by rank.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(&id, worker): (&WorkerId, &Worker)| match (worker.state, worker.address) {
            (WorkerState::Ready { holds, .. }, Some(address)) => {
                Some(Candidate { worker: id, rank: worker.rank, address, holds })
            }
            _ => None,
        };
        let mut candidates: Vec<Candidate> = self.workers.iter().filter_map(candidate).collect();
        candidates.sort_unstable_by_key(|candidate| candidate.rank);
        candidates
    }

    /// The most steps applied to a state that a ready worker holds.
    pub(crate) fn held_step(&self) -> Option<u64> {
        let holds = |worker: &Worker| match worker.state {
            WorkerState::Ready { holds, .. } => holds,
            _ => None,
        };
        self.workers.values().filter_map(holds).max()
    }

    /// Whether there are ready workers and no reason to wait for more: none is starting, or the first ready one has
    /// waited long enough.
    pub(crate) fn is_gathered(&self, cx: &Context) -> bool {
        let ready_since = |worker: &Worker| match worker.state {
            WorkerState::Ready { since, .. } => Some(since),
            _ => None,
        };
        let Some(first) = self.workers.values().filter_map(ready_since).min() else { return false };
        !self.workers.values().any(Worker::is_starting) || cx.since(first) >= cx.timing.gather_timeout
    }

    /// What a run without a generation is doing, and why.
    pub(crate) fn phase(&self, workers_min: u32) -> (Phase, String) {
        let in_setup: Vec<String> = self.setup.running().map(|node| node.to_string()).collect();
        let usable = self.workers.values().filter(|worker| worker.is_usable()).count();
        if self.slots.is_empty() {
            (Phase::Waiting, "no node has a free slot for it".into())
        } else if !in_setup.is_empty() {
            (Phase::Starting, format!("setup runs on {}", in_setup.join(", ")))
        } else if self.workers.values().any(Worker::is_starting) {
            (Phase::Starting, "workers start".into())
        } else if usable < workers_min as usize {
            (Phase::Waiting, format!("it has {usable} workers and needs {workers_min}"))
        } else {
            (Phase::Starting, String::new())
        }
    }

    /// The workers by rank, given the share of each member of the live generation.
    pub(crate) fn views(&self, shares: &BTreeMap<WorkerId, u32>) -> Vec<WorkerView> {
        let view = |(&id, worker): (&WorkerId, &Worker)| WorkerView {
            worker: id,
            rank: worker.rank,
            node: worker.node,
            pid: worker.pid,
            address: worker.address,
            state: worker.state_name(),
            share: shares.get(&id).copied().unwrap_or(0),
        };
        let mut views: Vec<WorkerView> = self.workers.iter().map(view).collect();
        views.sort_by_key(|worker| worker.rank);
        views
    }
}
