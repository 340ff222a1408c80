//! A slot of a node that a run has been given: who occupies it, and how often its workers failed.

use std::time::Duration;

use whimbrel_plan::{NodeId, WorkerId};

use crate::machine::Context;

/// A slot of a node that the run has been given. The slot's number is the rank of its worker.
#[derive(Debug)]
pub(super) struct Slot {
    node: NodeId,
    /// The worker whose process occupies the slot until it has ended.
    worker: Option<WorkerId>,
    /// Failures in a row without further progress.
    failures: u32,
    /// The most steps that any worker of the slot had seen applied when it failed.
    failed_at: u64,
    /// When the next worker may start; `None` once the slot is given up.
    next_start: Option<Duration>,
}

impl Slot {
    pub(super) fn new(node: NodeId, worker: Option<WorkerId>) -> Self {
        Self { node, worker, failures: 0, failed_at: 0, next_start: Some(Duration::ZERO) }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn worker(&self) -> Option<WorkerId> {
        self.worker
    }

    /// Whether a worker runs in the slot, or will.
    pub(super) fn is_in_use(&self) -> bool {
        self.worker.is_some() || self.next_start.is_some()
    }

    /// Whether a worker is to be started now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.worker.is_none() && self.next_start.is_some_and(|start| start <= now)
    }

    pub(super) fn occupy(&mut self, worker: WorkerId) {
        self.worker = Some(worker);
    }

    pub(super) fn vacate(&mut self) {
        self.worker = None;
    }

    /// Counts a failure of a worker that had seen `reached` steps applied, and plans the next start. Returns the number
    /// of failures in a row once the slot is given up.
    pub(super) fn count_failure(&mut self, cx: &Context, reached: u64) -> Option<u32> {
        // A worker that got further than the last one that failed shows that this is another failure.
        self.failures = if reached > self.failed_at { 1 } else { self.failures + 1 };
        self.failed_at = reached.max(self.failed_at);
        if self.failures >= cx.facts.max_failures {
            self.next_start = None;
            return Some(self.failures);
        }
        let doublings = self.failures.saturating_sub(2).min(6);
        let delay =
            if self.failures == 1 { Duration::ZERO } else { cx.timing.restart_delay * (1 << doublings) };
        self.next_start = Some(cx.now + delay);
        None
    }
}
