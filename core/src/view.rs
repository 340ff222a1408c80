//! How a run stands, for people.

use std::{net::SocketAddr, time::Duration};

use whimbrel_plan::{NodeId, WorkerId};

use crate::{
    command::Outcome,
    fleet::Preparation,
    interval::Interval,
    lifecycle::Intent,
    run::{Run, WorkerState},
};

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for nodes, or for more workers than there are.
    Waiting,
    /// `setup` runs, or workers start.
    Starting,
    /// A generation applies steps.
    Training,
    /// Between two generations.
    Regrouping,
    /// It saves a checkpoint, then stops; or its end is being recorded.
    Stopping,
    /// It stopped; it can be resumed.
    Stopped,
    /// Every step is applied.
    Finished,
    /// It could not go on.
    Failed,
    /// A person ended it.
    Cancelled,
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RunView {
    /// What it is doing.
    pub phase: Phase,
    /// Why; may be empty.
    pub detail: String,
    /// Steps applied.
    pub step: u64,
    /// The number of its latest generation; 0 before the first.
    pub generation: u64,
    /// The epoch of its coordinator.
    pub epoch: u64,
    /// Its workers by rank.
    pub workers: Vec<WorkerView>,
    /// Mean loss of the last step.
    pub loss: Option<f64>,
    /// The last validation loss.
    pub val_loss: Option<f64>,
    /// Steps applied in the newest committed checkpoint.
    pub checkpoint: Option<u64>,
    /// How often checkpoints are taken, where that is left to the core.
    pub interval: Option<Interval>,
    /// The last failure to save a checkpoint, unless one was committed since.
    pub save_failure: Option<SaveFailure>,
}

/// A checkpoint that could not be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveFailure {
    /// Steps applied to it.
    pub step: u64,
    /// Which worker failed, on what, and how.
    pub reason: String,
}

/// How a worker stands.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    /// The worker.
    pub worker: WorkerId,
    /// Its slot.
    pub rank: u32,
    /// Its node.
    pub node: NodeId,
    /// Its process id, once it has one.
    pub pid: Option<u32>,
    /// Where its peers reach it, once it is ready.
    pub address: Option<SocketAddr>,
    /// `starting`, `ready`, `training`, `leaving` or `lost`.
    pub state: &'static str,
    /// Its shards of each step; 0 outside a generation.
    pub share: u32,
}

impl Run {
    pub(crate) fn view(&self, now: Duration) -> RunView {
        let (phase, detail) = self.phase();
        let share = |id: &WorkerId| {
            let live = self.live.as_ref()?;
            let rank = live.members.iter().position(|member| member == id)?;
            live.shares.get(rank).copied()
        };
        let mut workers: Vec<WorkerView> = self
            .workers
            .iter()
            .map(|(id, worker)| WorkerView {
                worker: *id,
                rank: worker.rank,
                node: worker.node,
                pid: worker.pid,
                address: worker.address,
                state: match worker.state {
                    WorkerState::Starting { .. } => "starting",
                    WorkerState::Ready { .. } => "ready",
                    WorkerState::Member => "training",
                    WorkerState::Leaving { .. } => "leaving",
                    WorkerState::Lost => "lost",
                },
                share: share(id).unwrap_or(0),
            })
            .collect();
        workers.sort_by_key(|worker| worker.rank);
        RunView {
            phase,
            detail,
            step: self.high,
            generation: self.last_generation,
            epoch: self.epoch,
            workers,
            loss: self.loss,
            val_loss: self.val_loss,
            checkpoint: self.saves.committed,
            interval: self.interval(now),
            save_failure: self.saves.failure.clone(),
        }
    }

    /// What the run is doing, and why.
    pub(crate) fn phase(&self) -> (Phase, String) {
        match &self.intent {
            Intent::Ended(end) => {
                let phase = match end.outcome {
                    Outcome::Finished => Phase::Finished,
                    Outcome::Failed => Phase::Failed,
                    Outcome::Cancelled => Phase::Cancelled,
                    Outcome::Stopped | Outcome::Released => Phase::Stopped,
                };
                return (phase, end.reason.clone());
            }
            Intent::Recording(_) => return (Phase::Stopping, "its end is being recorded".into()),
            Intent::Stop { .. } => return (Phase::Stopping, "a checkpoint is being saved".into()),
            Intent::Cancel => return (Phase::Stopping, "it is being cancelled".into()),
            Intent::Train => {}
        }
        if let Some(live) = &self.live {
            return if live.is_broken() {
                (Phase::Regrouping, "a worker was lost".into())
            } else if live.halt_asked {
                (Phase::Regrouping, "workers join".into())
            } else {
                (Phase::Training, String::new())
            };
        }
        if self.start.is_none() {
            return (Phase::Regrouping, "a checkpoint that was found damaged is being examined".into());
        }
        let preparing = |(node, preparation): (&NodeId, &Preparation)| {
            (*preparation == Preparation::Running).then(|| node.to_string())
        };
        let preparing: Vec<String> = self.nodes.iter().filter_map(preparing).collect();
        let starting =
            self.workers.values().any(|worker| matches!(worker.state, WorkerState::Starting { .. }));
        let (able, min) = (self.able_workers(), self.facts.workers_min);
        if self.slots.is_empty() {
            (Phase::Waiting, "no node has a free slot for it".into())
        } else if !preparing.is_empty() {
            (Phase::Starting, format!("setup runs on {}", preparing.join(", ")))
        } else if starting {
            (Phase::Starting, "workers start".into())
        } else if able < min as usize {
            (Phase::Waiting, format!("it has {able} workers and needs {min}"))
        } else {
            (Phase::Starting, String::new())
        }
    }
}
