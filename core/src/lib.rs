//! The decision core of the coordinator: events in, commands out.
//!
//! [`Core::handle`] takes an event and the time, and returns the commands that follow. It reads no clock, draws no random
//! number and does no I/O (its `Cargo.toml` gives it no means to), and all its maps are ordered: the same events always
//! give the same commands. The coordinator's driver turns messages into events and executes the commands; the seeded
//! simulation in `tests/simulation` runs the same core through millions of faults.
//!
//! ```text
//!  Event ──► Core ─────────────► Command
//!             │  nodes            (nodes: slots offered, silent nodes)
//!             └─ run × n
//!                 │  take          an event goes to the machine that it concerns
//!                 │  apply         its effects go, as plain values, to the other machines
//!                 │  reconcile     what now?
//!                 ├─ fleet         slots, setup, workers and their processes
//!                 ├─ generations   formed, training, halted, broken; progress
//!                 ├─ checkpoints   slices, commits, the newest one, when the next is due
//!                 └─ lifecycle     train, stop, cancel, recording, ended
//! ```
//!
//! The four machines of a run do not know each other. Each keeps its fields to itself, takes plain values and returns
//! effects; only a run moves facts from one machine to another, and only `Run::reconcile` asks what follows.
//!
//! Where to start reading:
//!
//! 1. [`event`] and [`command`]: everything that goes in and comes out;
//! 2. `run`: `take`, `apply` and `reconcile`, a page each;
//! 3. one machine: `fleet`, `generations`, `checkpoints` or `lifecycle`;
//! 4. [`interval`]: how often checkpoints are taken if the core chooses; [`timing`]: every deadline by name.
//!
//! | question | answer |
//! | --- | --- |
//! | Where is a worker declared lost? | `Fleet::declare_lost`, whatever the evidence |
//! | Where is a node declared lost? | `Core::lose_node`: an event, or heartbeats that do not arrive |
//! | Where does evidence of a loss enter? | as an [`Event`]; a cloud's preemption notice would be another one |
//! | Where is a generation formed? | `Generations::form`, when `Run::reconcile` finds none |
//! | Where is a checkpoint committed? | `Checkpoints::slice_saved`, with the last slice |
//! | Where does a run end? | `Lifecycle::end` |

mod checkpoints;
mod fleet;
mod generations;
mod lifecycle;
mod machine;
mod nodes;
mod run;
mod view;

pub mod command;
pub mod event;
pub mod facts;
pub mod interval;
pub mod phase;
pub mod timing;

use std::{collections::BTreeMap, time::Duration};

use whimbrel_plan::{NodeId, RunId, WorkerId};

pub use crate::{
    command::{Command, End, Formation, Notice, Outcome},
    event::{Cause, Completion, Event, Exit, RunEvent},
    facts::{CheckpointEvery, EarlierTerms, RunFacts, Start},
    interval::{Bound, Interval, SaveCost},
    phase::Phase,
    timing::Timing,
    view::{RunView, SaveFailure, WorkerView},
};
use crate::{
    nodes::Nodes,
    run::{Opening, Run},
};

/// The state of a coordinator: its nodes and its runs.
#[derive(Debug)]
pub struct Core {
    timing: Timing,
    nodes: Nodes,
    runs: BTreeMap<RunId, Run>,
    /// In the order of submission, which is the order in which runs are given slots.
    order: Vec<RunId>,
}

impl Core {
    /// A core without nodes and runs.
    pub fn new(timing: Timing) -> Self {
        Self { timing, nodes: Nodes::default(), runs: BTreeMap::new(), order: Vec::new() }
    }

    /// Takes an event and decides. `now` is the time since any fixed moment and never goes back.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Tick => self.lose_silent_nodes(now, &mut commands),
            Event::RunOpened { run, facts, epoch, start, earlier } => {
                self.open(now, Opening { run, facts, epoch, start, earlier });
            }
            Event::NodeJoined { node, slots } => self.nodes.joined(node, slots, now),
            Event::NodeHeartbeat { node } => self.nodes.heartbeat(node, now),
            Event::NodeLost { node, reason } => self.lose_node(now, node, &reason, &mut commands),
            Event::OfRun { run, event } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.take(now, event, &mut commands);
                }
            }
        }
        self.reconcile(now, &mut commands);
        // The second round gives slots that a run has just given up to another run.
        self.reconcile(now, &mut commands);
        commands
    }

    /// Whether this core started that worker for that run and has not lost it. If not, the driver refuses its connection
    /// and its messages.
    pub fn expects(&self, run: &RunId, worker: WorkerId) -> bool {
        self.runs.get(run).is_some_and(|run| run.expects(worker))
    }

    /// Whether a node has joined and is not lost. If not, its agent must end its workers and join again.
    pub fn has_node(&self, node: NodeId) -> bool {
        self.nodes.contains(node)
    }

    /// A run as it is now.
    pub fn view(&self, run: &RunId) -> Option<RunView> {
        self.runs.get(run).map(Run::view)
    }

    /// All runs as they are now, in the order of their submission.
    pub fn views(&self) -> Vec<(RunId, RunView)> {
        let view = |id: &RunId| self.runs.get(id).map(|run| (id.clone(), run.view()));
        self.order.iter().filter_map(view).collect()
    }

    fn open(&mut self, now: Duration, opening: Opening) {
        let id = opening.run.clone();
        let mut run = Run::new(opening, self.timing, now);
        if let Some(before) = self.runs.remove(&id) {
            run.inherit(before);
        }
        self.order.retain(|known| *known != id);
        self.order.push(id.clone());
        self.runs.insert(id, run);
    }

    fn reconcile(&mut self, now: Duration, out: &mut Vec<Command>) {
        self.give_slots();
        for id in &self.order {
            if let Some(run) = self.runs.get_mut(id) {
                run.reconcile(now, out);
            }
        }
    }

    /// Gives free slots to runs in the order of their submission, as many as each can use.
    fn give_slots(&mut self) {
        for id in &self.order {
            for (node, slots) in self.nodes.slots() {
                let used: u32 = self.runs.values().map(|run| run.slots_on(node)).sum();
                let Some(run) = self.runs.get_mut(id) else { continue };
                for _ in used..slots {
                    if !run.wants_slot(node) {
                        break;
                    }
                    run.add_slot(node);
                }
            }
        }
    }

    fn lose_silent_nodes(&mut self, now: Duration, out: &mut Vec<Command>) {
        let timeout = self.timing.heartbeat_timeout;
        for node in self.nodes.silent(now, timeout) {
            let reason = format!("silent for {} s", timeout.as_secs_f32());
            self.lose_node(now, node, &reason, out);
        }
    }

    fn lose_node(&mut self, now: Duration, node: NodeId, reason: &str, out: &mut Vec<Command>) {
        self.nodes.remove(node);
        for run in self.runs.values_mut() {
            run.node_lost(now, node, reason, out);
        }
    }
}
