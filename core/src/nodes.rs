//! The nodes that have joined the coordinator, the slots that they offer, and which of them are silent.

use std::{collections::BTreeMap, time::Duration};

use whimbrel_plan::NodeId;

/// The nodes that have joined and are not lost.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Debug)]
struct Node {
    slots: u32,
    /// When it last sent anything.
    heard: Duration,
}

impl Nodes {
    pub(crate) fn joined(&mut self, node: NodeId, slots: u32, now: Duration) {
        self.nodes.insert(node, Node { slots, heard: now });
    }

    pub(crate) fn heartbeat(&mut self, node: NodeId, now: Duration) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.heard = now;
        }
    }

    pub(crate) fn remove(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Each node and the slots that it offers.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.nodes.iter().map(|(&id, node)| (id, node.slots))
    }

    /// The nodes that have sent nothing for longer than `timeout`.
    pub(crate) fn silent(&self, now: Duration, timeout: Duration) -> Vec<NodeId> {
        let silent = |node: &Node| now.saturating_sub(node.heard) > timeout;
        self.nodes.iter().filter(|(_, node)| silent(node)).map(|(&id, _)| id).collect()
    }
}
