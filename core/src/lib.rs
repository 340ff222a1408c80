//! The decision core of the coordinator: events in, commands out.
//!
//! [`Core::handle`] takes what happened, and when, and returns what is to be done. It reads no clock, draws no random
//! number and does no I/O (its `Cargo.toml` gives it no means to), and all its maps are ordered: the same events give the
//! same commands. The coordinator's driver executes the commands and turns their results into further events; the
//! seeded simulation in `tests/` runs the same core against a world that fails.
//!
//! Where to start reading:
//!
//! - [`event`] and [`command`]: all that goes in and comes out;
//! - `run`: a run as the core sees it, and `reconcile`, the one place where it asks "what now?";
//! - `fleet`: slots of nodes given to runs, workers started and started again;
//! - `generations`: generations formed, broken, halted and replaced;
//! - `checkpoints`: checkpoints from the first slice to the commit; [`interval`]: how often, where that is left to the core;
//! - `lifecycle`: finished, failed, cancelled, stopped.

mod checkpoints;
mod fleet;
mod generations;
mod lifecycle;
mod run;
mod view;

pub mod command;
pub mod event;
pub mod facts;
pub mod interval;

use std::{collections::BTreeMap, time::Duration};

use whimbrel_plan::{NodeId, RunId, WorkerId};

pub use crate::{
    command::{Command, End, Formation, Notice, Outcome},
    event::{Cause, Event, Exit, RunEvent},
    facts::{CheckpointEvery, Past, RunFacts, Start, Timing},
    interval::{Bound, Interval, SaveCost},
    view::{Phase, RunView, SaveFailure, WorkerView},
};
use crate::{fleet::Node, run::Run};

/// The state of a coordinator's mind.
#[derive(Debug)]
pub struct Core {
    timing: Timing,
    /// When the last event was taken.
    now: Duration,
    nodes: BTreeMap<NodeId, Node>,
    runs: BTreeMap<RunId, Run>,
    /// In the order of submission, which is the order in which they are given nodes.
    order: Vec<RunId>,
}

impl Core {
    /// A core that knows of no node and no run.
    pub fn new(timing: Timing) -> Self {
        Self { timing, now: Duration::ZERO, nodes: BTreeMap::new(), runs: BTreeMap::new(), order: Vec::new() }
    }

    /// Takes an event and decides. `now` is the time since any fixed moment and never goes back.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        self.now = now;
        match event {
            Event::Tick => self.find_silent_nodes(now, &mut commands),
            Event::RunOpened { run, facts, epoch, start, past } => {
                self.open(now, Run::new(run, facts, self.timing, epoch, start, past, now));
            }
            Event::NodeJoined { node, slots } => {
                self.nodes.insert(node, Node { slots, heard: now });
            }
            Event::NodeHeard { node } => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.heard = now;
                }
            }
            Event::NodeLost { node, reason } => self.lose_node(now, node, &reason, &mut commands),
            Event::OfRun { run, event } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.take(now, event, &mut commands);
                }
            }
        }
        self.reconcile(now, &mut commands);
        // Slots that a run has just given up are another's at once.
        self.reconcile(now, &mut commands);
        commands
    }

    fn reconcile(&mut self, now: Duration, out: &mut Vec<Command>) {
        self.give_slots();
        for id in &self.order {
            if let Some(run) = self.runs.get_mut(id) {
                run.reconcile(now, out);
            }
        }
    }

    /// Whether a worker that calls in was started for that run by this core, and is not given up.
    pub fn expects(&self, run: &RunId, worker: WorkerId) -> bool {
        self.runs.get(run).is_some_and(|run| run.expects(worker))
    }

    /// Whether a node that calls in has joined and is not given up. One that is not must join anew, its workers ended.
    pub fn has_node(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// How a run stands.
    pub fn view(&self, run: &RunId) -> Option<RunView> {
        self.runs.get(run).map(|run| run.view(self.now))
    }

    /// All runs in the order of their submission.
    pub fn views(&self) -> Vec<(RunId, RunView)> {
        let view = |id: &RunId| self.runs.get(id).map(|run| (id.clone(), run.view(self.now)));
        self.order.iter().filter_map(view).collect()
    }

    fn open(&mut self, now: Duration, mut run: Run) {
        let id = run.id.clone();
        if let Some(before) = self.runs.remove(&id) {
            run.inherit(before, now);
        }
        self.order.retain(|known| *known != id);
        self.order.push(id.clone());
        self.runs.insert(id, run);
    }
}
