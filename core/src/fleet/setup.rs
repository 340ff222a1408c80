//! How far each node is with a run's `setup`, which a node runs once, before its first worker.

use std::collections::BTreeMap;

use whimbrel_plan::NodeId;

/// How far a node is with `setup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preparation {
    /// It was commanded to run it.
    Running,
    /// Workers can be started.
    Done,
    /// It failed: the run does not use the node.
    Failed,
}

/// What must happen before a worker can start on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    RunSetup,
    StartWorker,
    Wait,
}

/// How far each node of a run is with `setup`.
#[derive(Debug, Default)]
pub(super) struct Setup {
    nodes: BTreeMap<NodeId, Preparation>,
    /// How `setup` just failed on a node, and its last lines.
    failure: Option<(String, Vec<String>)>,
}

impl Setup {
    /// What to do on a node where a worker is due. Assumes that the caller does it.
    pub(super) fn advance(&mut self, node: NodeId, has_setup: bool) -> NextStep {
        match self.nodes.get(&node) {
            None if has_setup => {
                self.nodes.insert(node, Preparation::Running);
                NextStep::RunSetup
            }
            None | Some(Preparation::Done) => {
                self.nodes.insert(node, Preparation::Done);
                NextStep::StartWorker
            }
            Some(Preparation::Running | Preparation::Failed) => NextStep::Wait,
        }
    }

    pub(super) fn has_failed_on(&self, node: NodeId) -> bool {
        self.nodes.get(&node) == Some(&Preparation::Failed)
    }

    pub(super) fn succeeded(&mut self, node: NodeId) {
        if let Some(preparation) = self.nodes.get_mut(&node) {
            *preparation = Preparation::Done;
        }
    }

    /// Returns whether the node still belongs to the run; one that was lost meanwhile does not.
    pub(super) fn failed(&mut self, node: NodeId, reason: &str, tail: Vec<String>) -> bool {
        let Some(preparation) = self.nodes.get_mut(&node) else { return false };
        *preparation = Preparation::Failed;
        self.failure = Some((format!("setup failed on node {node}: {reason}"), tail));
        true
    }

    /// The last failure that was not handled yet: what happened, and the last lines that `setup` printed.
    pub(super) fn take_failure(&mut self) -> Option<(String, Vec<String>)> {
        self.failure.take()
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// The nodes on which `setup` runs.
    pub(super) fn running(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes
            .iter()
            .filter(|&(_, &preparation)| preparation == Preparation::Running)
            .map(|(&node, _)| node)
    }

    /// Gives up every `setup` that runs and returns its node.
    pub(super) fn abort(&mut self) -> Vec<NodeId> {
        let running: Vec<NodeId> = self.running().collect();
        for &node in &running {
            self.nodes.insert(node, Preparation::Failed);
        }
        running
    }
}
