//! Slots of nodes given to runs, and workers started in them, again where they fail.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use whimbrel_plan::{NodeId, WorkerId};

use crate::{
    Core,
    command::{Command, Notice},
    event::{Exit, RunEvent},
    run::{Run, Worker, WorkerState},
};

/// A node of the coordinator.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) slots: u32,
    pub(crate) heard: Duration,
}

/// How far a node is with a run's `setup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preparation {
    /// It has been told to.
    Running,
    /// Workers can be started.
    Done,
    /// It failed: the node is of no use to the run.
    Failed,
}

/// A slot of a node that a run has been given.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) node: NodeId,
    /// Who occupies it; until the process has ended, nobody else.
    pub(crate) worker: Option<WorkerId>,
    /// Failures in a row without the run getting further.
    failures: u32,
    /// Most steps applied when it failed last.
    failed_at: u64,
    /// When the next worker may start; `None` once it is given up.
    next_start: Option<Duration>,
}

impl Slot {
    /// Whether a worker runs there, or will.
    fn is_in_use(&self) -> bool {
        self.worker.is_some() || self.next_start.is_some()
    }
}

impl Core {
    /// Gives free slots to runs in the order of their submission, as many as each can use.
    pub(crate) fn give_slots(&mut self) {
        let used = |core: &Self, node: NodeId| -> u32 {
            core.runs
                .values()
                .map(|run| run.slots.values().filter(|slot| slot.node == node).count() as u32)
                .sum()
        };
        for id in self.order.clone() {
            for (&node, facts) in &self.nodes {
                let mut free = facts.slots.saturating_sub(used(self, node));
                let Some(run) = self.runs.get_mut(&id) else { continue };
                while free > 0 && run.wants_place(node) {
                    run.add_place(node);
                    free -= 1;
                }
            }
        }
    }

    pub(crate) fn find_silent_nodes(&mut self, now: Duration, out: &mut Vec<Command>) {
        let silent = |node: &Node| now.saturating_sub(node.heard) > self.timing.silence;
        let silent: Vec<NodeId> =
            self.nodes.iter().filter(|(_, node)| silent(node)).map(|(&id, _)| id).collect();
        for node in silent {
            let reason = format!("silent for {} s", self.timing.silence.as_secs_f32());
            self.lose_node(now, node, &reason, out);
        }
    }

    pub(crate) fn lose_node(&mut self, now: Duration, node: NodeId, reason: &str, out: &mut Vec<Command>) {
        self.nodes.remove(&node);
        for run in self.runs.values_mut() {
            let on_node = |worker: &Worker| worker.node == node;
            let lost: Vec<WorkerId> =
                run.workers.iter().filter(|(_, worker)| on_node(worker)).map(|(&id, _)| id).collect();
            for worker in lost {
                let exit = Exit::NodeLost(reason.to_owned());
                run.take(now, RunEvent::WorkerExited { worker, exit, tail: Vec::new() }, out);
            }
            run.slots.retain(|_, slot| slot.node != node);
            run.nodes.remove(&node);
        }
    }
}

impl Run {
    fn wants_place(&self, node: NodeId) -> bool {
        !self.is_ending()
            && self.slots.values().filter(|slot| slot.is_in_use()).count() < self.facts.workers_max as usize
            && self.nodes.get(&node) != Some(&Preparation::Failed)
    }

    fn add_place(&mut self, node: NodeId) {
        let taken: BTreeSet<u32> = self.slots.keys().copied().collect();
        let rank = (0..).find(|rank| !taken.contains(rank)).unwrap_or(u32::MAX);
        self.slots.insert(rank, Slot::new(node, None));
    }

    /// Takes over from the same run under an earlier epoch: its processes may not all have ended, they keep their slots
    /// until then, and their names are not used again.
    pub(crate) fn inherit(&mut self, before: Self, now: Duration) {
        self.last_worker = before.last_worker;
        self.workers = before.workers;
        for worker in self.workers.values_mut() {
            if !matches!(worker.state, WorkerState::Leaving { .. } | WorkerState::Lost) {
                worker.state = WorkerState::Leaving { since: now };
            }
        }
        let occupied = before.slots.into_iter().filter(|(_, slot)| slot.worker.is_some());
        self.slots = occupied.map(|(rank, slot)| (rank, Slot::new(slot.node, slot.worker))).collect();
    }

    pub(crate) fn prepared(&mut self, node: NodeId) {
        if let Some(preparation) = self.nodes.get_mut(&node) {
            *preparation = Preparation::Done;
        }
    }

    pub(crate) fn prepare_failed(&mut self, node: NodeId, reason: &str, tail: Vec<String>) {
        // A node that was lost meanwhile is of no use anyway.
        let Some(preparation) = self.nodes.get_mut(&node) else { return };
        *preparation = Preparation::Failed;
        self.slots.retain(|_, slot| slot.node != node);
        self.setup_failure = Some((format!("setup failed on node {node}: {reason}"), tail));
    }

    /// Goes on without a node whose `setup` failed, if other nodes have had slots to give instead.
    pub(crate) fn do_without_setup(&mut self, out: &mut Vec<Command>) {
        let Some((reason, tail)) = self.setup_failure.take() else { return };
        if self.slots.is_empty() {
            self.fail(reason, tail, out);
        } else {
            self.warn(format!("{reason}; the run goes on without that node"), tail, out);
        }
    }

    /// Prepares nodes that have not been, and starts a worker in each slot that is due one.
    pub(crate) fn start_workers(&mut self, now: Duration, out: &mut Vec<Command>) {
        if self.is_ending() {
            return;
        }
        let due = |slot: &Slot| slot.worker.is_none() && slot.next_start.is_some_and(|start| start <= now);
        let due: Vec<u32> = self.slots.iter().filter(|(_, slot)| due(slot)).map(|(&rank, _)| rank).collect();
        for rank in due {
            let Some(slot) = self.slots.get_mut(&rank) else { continue };
            let (run, node) = (self.id.clone(), slot.node);
            match self.nodes.get(&node) {
                None if self.facts.has_setup => {
                    self.nodes.insert(node, Preparation::Running);
                    out.push(Command::Prepare { run, node });
                }
                None | Some(Preparation::Done) => {
                    self.nodes.insert(node, Preparation::Done);
                    self.last_worker += 1;
                    let worker = WorkerId(self.last_worker);
                    slot.worker = Some(worker);
                    self.workers.insert(worker, Worker::starting(rank, node, now));
                    out.push(Command::Start { run, node, worker });
                }
                Some(Preparation::Running | Preparation::Failed) => {}
            }
        }
    }

    pub(crate) fn worker_started(&mut self, id: WorkerId, pid: u32, out: &mut Vec<Command>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.pid = Some(pid);
        let (rank, node) = (worker.rank, worker.node);
        self.announce(Notice::WorkerStarted { rank, worker: id, pid, node }, out);
    }

    pub(crate) fn worker_ready(&mut self, now: Duration, id: WorkerId, address: SocketAddr) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if matches!(worker.state, WorkerState::Starting { .. }) {
            worker.state = WorkerState::Ready { holds: None, since: now };
            worker.address = Some(address);
            worker.heard = now;
        }
    }

    pub(crate) fn worker_heard(&mut self, now: Duration, id: WorkerId, step: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.heard = now;
        if worker.state == WorkerState::Member {
            worker.reached = worker.reached.max(step);
            self.advance(now, step);
        }
    }

    pub(crate) fn trainer_failed(&mut self, id: WorkerId, reason: String) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.failure = Some(reason);
        }
    }

    /// A worker must not be used any more: its process, if it still runs, is killed, and its slot is free once that
    /// has ended.
    pub(crate) fn lose(&mut self, now: Duration, id: WorkerId, reason: &str, out: &mut Vec<Command>) {
        if self.give_up(now, id, out)
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.failure.get_or_insert_with(|| reason.to_owned());
            out.push(Command::Kill { run: self.id.clone(), node: worker.node, worker: id });
        }
    }

    /// A worker cannot be reached any more. Its process most likely ends this very moment, and is given the time to, so
    /// that its own exit code is seen.
    pub(crate) fn part_with(&mut self, now: Duration, id: WorkerId, out: &mut Vec<Command>) {
        if self.give_up(now, id, out)
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.kill_at = Some(now + self.timing.leave);
        }
    }

    /// Goes on without a worker. Says whether that is news.
    fn give_up(&mut self, now: Duration, id: WorkerId, out: &mut Vec<Command>) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        match worker.state {
            // One that is leaving ends as it was told to; `clear_out` sees to it that it does.
            WorkerState::Lost | WorkerState::Leaving { .. } => return false,
            WorkerState::Starting { .. } | WorkerState::Ready { .. } | WorkerState::Member => {}
        }
        worker.state = WorkerState::Lost;
        self.miss_member(now, id);
        self.abandon_saves_of(now, id, out);
        true
    }

    pub(crate) fn worker_exited(
        &mut self,
        now: Duration,
        id: WorkerId,
        exit: Exit,
        tail: Vec<String>,
        out: &mut Vec<Command>,
    ) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let as_told = matches!(worker.state, WorkerState::Leaving { .. }) || self.has_ended();
        if !as_told {
            self.miss_member(now, id);
            self.abandon_saves_of(now, id, out);
        }
        let (rank, node, pid) = (worker.rank, worker.node, worker.pid);
        let (reason, tail) = if as_told { (None, Vec::new()) } else { (worker.failure, tail) };
        let notice = Notice::WorkerExited {
            rank,
            worker: id,
            pid,
            node,
            exit: exit.clone(),
            reason: reason.clone(),
            tail: tail.clone(),
        };
        self.announce(notice, out);
        let Some(slot) = self.slots.get_mut(&rank) else { return };
        slot.worker = None;
        if as_told || matches!(exit, Exit::NodeLost(_)) {
            return;
        }
        // Only getting further than at its last failure shows that this one is another.
        slot.failures = if worker.reached > slot.failed_at { 1 } else { slot.failures + 1 };
        slot.failed_at = worker.reached.max(slot.failed_at);
        if slot.failures < self.facts.max_failures {
            let doublings = slot.failures.saturating_sub(2).min(6);
            let wait =
                if slot.failures == 1 { Duration::ZERO } else { self.timing.restart * (1 << doublings) };
            slot.next_start = Some(now + wait);
            return;
        }
        slot.next_start = None;
        let failures = slot.failures;
        let what = reason.map_or_else(|| exit.to_string(), |reason| format!("{reason} ({exit})"));
        let text = format!(
            "worker {id} (rank {rank}) failed {failures} times in a row without getting further: {what}"
        );
        let in_use = self.slots.values().filter(|slot| slot.is_in_use()).count();
        if in_use < self.facts.workers_min.max(1) as usize {
            self.fail(text, tail, out);
        } else {
            self.warn(format!("{text}; its slot stays empty"), tail, out);
        }
    }

    /// Workers that train or could at once.
    pub(crate) fn able_workers(&self) -> usize {
        let able = |worker: &&Worker| matches!(worker.state, WorkerState::Ready { .. } | WorkerState::Member);
        self.workers.values().filter(able).count()
    }

    /// Loses workers that were not heard of, or did not become ready, in time.
    pub(crate) fn lose_the_silent(&mut self, now: Duration, out: &mut Vec<Command>) {
        let mut late = Vec::new();
        for (&id, worker) in &self.workers {
            match worker.state {
                WorkerState::Ready { .. } | WorkerState::Member => {
                    if now.saturating_sub(worker.heard) > self.timing.silence {
                        late.push((id, format!("silent for {} s", self.timing.silence.as_secs_f32())));
                    }
                }
                WorkerState::Starting { since } => {
                    if now.saturating_sub(since) > self.timing.start {
                        late.push((
                            id,
                            format!("not ready {} s after its start", self.timing.start.as_secs_f32()),
                        ));
                    }
                }
                WorkerState::Leaving { .. } | WorkerState::Lost => {}
            }
        }
        for (id, reason) in late {
            self.lose(now, id, &reason, out);
        }
    }
}

impl Slot {
    fn new(node: NodeId, worker: Option<WorkerId>) -> Self {
        Self { node, worker, failures: 0, failed_at: 0, next_start: Some(Duration::ZERO) }
    }
}

impl Worker {
    fn starting(rank: u32, node: NodeId, now: Duration) -> Self {
        Self {
            rank,
            node,
            pid: None,
            state: WorkerState::Starting { since: now },
            heard: now,
            address: None,
            kill_at: None,
            reached: 0,
            failure: None,
        }
    }
}
