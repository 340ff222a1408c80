//! What clients receive: plain facts in, messages of the protocol out.
//!
//! The driver computes the facts first; the functions here only map them, and never touch the driver's state.

mod interval;
mod log;
mod status;

use whimbrel_core::{End, Notice, Outcome, Phase};
use whimbrel_plan::{NodeId, Origin};
use whimbrel_proto::v1::{self, run_event::Event};
use whimbrel_store::{self as store, Ended};

use self::interval::explain;
pub(crate) use self::{
    log::log_event,
    status::{HostedFacts, replica_status, run_status},
};
use crate::record::report::{CommittedCheckpoint, Replicated};

/// The status detail of a run whose end is recorded and whose replicas are not yet up to date.
const FINISHING_REPLICAS: &str = "its replicas receive the end of the run";

/// What the driver measured of a step that the core announces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepTiming {
    /// Since the step before; for the first step of a generation, the time that rank 0 took for it.
    pub(crate) seconds: f64,
    /// On rank 0.
    pub(crate) compute_seconds: f64,
    /// On rank 0; includes waiting for other workers.
    pub(crate) reduce_seconds: f64,
    /// Samples in the step.
    pub(crate) samples: u64,
    /// Tokens in the step, if the trainer counts in tokens.
    pub(crate) tokens: Option<u64>,
}

/// The event for a notice of the core. `timing` is that of the step, if the notice is about a step.
pub(crate) fn event(
    notice: Notice,
    hosted: &HostedFacts<'_>,
    timing: StepTiming,
    node_name: impl Fn(NodeId) -> String,
) -> Event {
    match notice {
        Notice::WorkerStarted { rank, worker, pid, node } => {
            Event::Worker(v1::WorkerStartedEvent { rank, pid, worker: worker.0, node: node_name(node) })
        }
        Notice::WorkerExited { rank, worker, pid, node, exit, reason, tail } => {
            Event::Exit(v1::WorkerExitedEvent {
                rank,
                pid: pid.unwrap_or(0),
                worker: worker.0,
                node: node_name(node),
                reason: reason.map_or_else(|| exit.to_string(), |reason| format!("{reason} ({exit})")),
                tail,
            })
        }
        Notice::Formed { generation, step, workers, origin, gap } => Event::Generation(v1::GenerationEvent {
            generation,
            step,
            workers,
            origin: match origin {
                Origin::Initial => "initial",
                Origin::Checkpoint { .. } => "checkpoint",
                Origin::Members { .. } => "workers",
            }
            .into(),
            seconds: gap.as_secs_f64(),
        }),
        Notice::Step { step, generation, workers, loss } => {
            let StepTiming { seconds, compute_seconds, reduce_seconds, samples, tokens } = timing;
            Event::Step(v1::StepEvent {
                step,
                loss,
                generation,
                workers,
                seconds,
                compute_seconds,
                reduce_seconds,
                samples,
                tokens,
            })
        }
        Notice::Evaluated { step, val_loss } => Event::Evaluation(v1::EvaluationEvent { step, val_loss }),
        Notice::Interval(interval) => Event::Interval(v1::IntervalEvent {
            seconds: interval.every.as_secs_f64(),
            explanation: explain(interval),
        }),
        Notice::Warning { text, tail } => Event::Warning(v1::WarningEvent { text, tail }),
        Notice::Phase { phase: now, detail } => {
            Event::Phase(v1::PhaseEvent { phase: phase(now).into(), detail })
        }
        Notice::Ended(end) => Event::Ended(ended(end, hosted)),
    }
}

/// The event that the recorder committed a checkpoint.
pub(crate) fn committed(committed: CommittedCheckpoint) -> Event {
    let CommittedCheckpoint { step, manifest, bytes, duration, stall } = committed;
    let (seconds, blocked_seconds) = (duration.as_secs_f64(), stall.as_secs_f64());
    Event::Checkpoint(v1::CheckpointEvent { step, manifest, bytes, seconds, blocked_seconds })
}

/// The event that checkpoints arrived in a replica.
pub(crate) fn replicated(replicated: &Replicated) -> Event {
    Event::Replicated(v1::ReplicatedEvent {
        replica: Some(replica_status(&replicated.replica, replicated.newest_of_run)),
        bytes: replicated.bytes,
        seconds: replicated.duration.as_secs_f64(),
    })
}

/// The event that the run's end is recorded and its replicas are not yet up to date.
pub(crate) fn finishing_replicas() -> Event {
    Event::Phase(v1::PhaseEvent { phase: v1::Phase::Stopping.into(), detail: FINISHING_REPLICAS.into() })
}

/// The event that a run is to be opened again after a panic; `detail` says why and when.
pub(crate) fn reopening(detail: String) -> Event {
    Event::Phase(v1::PhaseEvent { phase: v1::Phase::Waiting.into(), detail })
}

/// Corrects the end of a run by what its log says, if the coordinator learned of the end from the log.
pub(crate) fn record_outcome(event: &mut v1::EndedEvent, ended: &Ended) {
    event.phase = match ended.outcome {
        store::Outcome::Finished => v1::Phase::Finished,
        store::Outcome::Failed => v1::Phase::Failed,
        store::Outcome::Cancelled => v1::Phase::Cancelled,
    }
    .into();
    (event.step, event.loss, event.val_loss) = (ended.step, ended.loss, ended.val_loss);
    event.state = ended.state.as_ref().map(ToString::to_string).unwrap_or_default();
    event.reason = ended.reason.clone().unwrap_or_default();
}

/// A warning without lines of a worker's output.
pub(crate) fn warning(text: String) -> Event {
    Event::Warning(v1::WarningEvent { text, tail: Vec::new() })
}

fn ended(end: End, hosted: &HostedFacts<'_>) -> v1::EndedEvent {
    let phase = match end.outcome {
        Outcome::Finished => v1::Phase::Finished,
        Outcome::Failed => v1::Phase::Failed,
        Outcome::Cancelled => v1::Phase::Cancelled,
        Outcome::Stopped | Outcome::Released => v1::Phase::Stopped,
    };
    v1::EndedEvent {
        phase: phase.into(),
        step: end.step,
        loss: end.loss,
        val_loss: end.val_loss,
        state: end
            .state
            .map(|state| blake3::Hash::from_bytes(state).to_hex().to_string())
            .unwrap_or_default(),
        reason: end.reason,
        tail: end.tail,
        checkpoint: hosted.checkpoint.map(|step| hosted.dir.checkpoint_uri(step)).unwrap_or_default(),
        seconds: hosted.age.as_secs_f64(),
        replicas: hosted.replica_statuses(),
    }
}

fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Waiting => v1::Phase::Waiting,
        Phase::Starting => v1::Phase::Starting,
        Phase::Training => v1::Phase::Training,
        Phase::Regrouping => v1::Phase::Regrouping,
        Phase::Stopping => v1::Phase::Stopping,
        Phase::Stopped => v1::Phase::Stopped,
        Phase::Finished => v1::Phase::Finished,
        Phase::Failed => v1::Phase::Failed,
        Phase::Cancelled => v1::Phase::Cancelled,
    }
}
