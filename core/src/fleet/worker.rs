//! A worker process: what it is doing, when its last message arrived, and how its failure is explained.

use std::{net::SocketAddr, time::Duration};

use whimbrel_plan::NodeId;

use crate::timing::Timing;

/// A worker process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) rank: u32,
    pub(super) node: NodeId,
    pub(super) pid: Option<u32>,
    pub(super) state: WorkerState,
    /// When it last sent anything.
    pub(super) heard: Duration,
    /// Where its peers reach it, once it is ready.
    pub(super) address: Option<SocketAddr>,
    /// The most steps that it has seen applied as a member.
    pub(super) reached: u64,
    /// When its process is killed, unless it has ended by then.
    pub(super) kill_at: Option<Duration>,
    /// Why it failed, in its own words or in the core's.
    pub(super) failure: Option<String>,
    /// Any other worker would fail in the same way.
    pub(super) is_fatal: bool,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerState {
    /// Its start was commanded; it is not ready yet.
    Starting { since: Duration },
    /// It can be a member. It holds the state after `holds` steps, if any.
    Ready { holds: Option<u64>, since: Duration },
    /// It is in the live generation.
    Member,
    /// It was told to end.
    Leaving { since: Duration },
    /// It is not used any more; its process has yet to end.
    Lost,
}

impl Worker {
    pub(super) fn starting(rank: u32, node: NodeId, now: Duration) -> Self {
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
            is_fatal: false,
        }
    }

    /// Whether it trains or could at once.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.state, WorkerState::Ready { .. } | WorkerState::Member)
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.state, WorkerState::Starting { .. })
    }

    /// Whether the run counts on it: it was neither told to leave nor lost.
    pub(super) fn is_in_service(&self) -> bool {
        self.is_usable() || self.is_starting()
    }

    /// Which deadline it has missed, if any: to become ready, or to send a heartbeat.
    pub(super) fn missed_deadline(&self, now: Duration, timing: &Timing) -> Option<String> {
        match self.state {
            WorkerState::Ready { .. } | WorkerState::Member => {
                let late = now.saturating_sub(self.heard) > timing.heartbeat_timeout;
                late.then(|| format!("silent for {} s", timing.heartbeat_timeout.as_secs_f32()))
            }
            WorkerState::Starting { since } => {
                let late = now.saturating_sub(since) > timing.start_timeout;
                late.then(|| format!("not ready {} s after its start", timing.start_timeout.as_secs_f32()))
            }
            WorkerState::Leaving { .. } | WorkerState::Lost => None,
        }
    }

    /// Whether its process should have ended by now.
    pub(super) fn is_overdue(&self, now: Duration, leave_timeout: Duration) -> bool {
        let ignores_leave = match self.state {
            WorkerState::Leaving { since } => now.saturating_sub(since) > leave_timeout,
            _ => false,
        };
        ignores_leave || self.kill_at.is_some_and(|at| at <= now)
    }

    /// The name of its state in views.
    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            WorkerState::Starting { .. } => "starting",
            WorkerState::Ready { .. } => "ready",
            WorkerState::Member => "training",
            WorkerState::Leaving { .. } => "leaving",
            WorkerState::Lost => "lost",
        }
    }
}
