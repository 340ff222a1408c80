//! What the core has to say, as watchers and clients hear it.

use whimbrel_core::{End, Notice, Outcome, Phase, RunView};
use whimbrel_plan::{NodeId, Origin};
use whimbrel_proto::v1::{self, run_event::Event};

use crate::desk::Desk;

/// How a run stands.
pub(crate) fn status(desk: &Desk, view: RunView, node_name: impl Fn(NodeId) -> String) -> v1::RunStatus {
    let workers = view.workers.into_iter().map(|worker| v1::WorkerStatus {
        worker: worker.worker.0,
        rank: worker.rank,
        pid: worker.pid.unwrap_or(0),
        node: node_name(worker.node),
        state: worker.state.to_owned(),
        share: worker.share,
    });
    v1::RunStatus {
        run: desk.id().to_string(),
        name: desk.spec.name.clone(),
        uri: desk.dir.uri().to_owned(),
        phase: phase(view.phase).into(),
        detail: view.detail,
        step: view.step,
        steps: desk.spec.train.steps,
        generation: view.generation,
        epoch: view.epoch,
        workers: workers.collect(),
        loss: view.loss,
        val_loss: view.val_loss,
        checkpoint: view.checkpoint,
        workers_min: desk.spec.workers.min,
        workers_max: desk.spec.workers.max,
    }
}

/// A notice as an event.
pub(crate) fn event(desk: &mut Desk, notice: Notice, node_name: impl Fn(NodeId) -> String) -> Event {
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
            Event::Step(desk.step_event(step, generation, workers, loss))
        }
        Notice::Evaluated { step, val_loss } => Event::Evaluation(v1::EvaluationEvent { step, val_loss }),
        Notice::Warning { text, tail } => Event::Warning(v1::WarningEvent { text, tail }),
        Notice::Phase { phase: now, detail } => {
            Event::Phase(v1::PhaseEvent { phase: phase(now).into(), detail })
        }
        Notice::Ended(end) => Event::Ended(ended(desk, end)),
    }
}

fn ended(desk: &Desk, end: End) -> v1::EndedEvent {
    let phase = match end.outcome {
        Outcome::Finished => v1::Phase::Finished,
        Outcome::Failed => v1::Phase::Failed,
        Outcome::Cancelled => v1::Phase::Cancelled,
        Outcome::Stopped | Outcome::LetGo => v1::Phase::Stopped,
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
        checkpoint: desk.checkpoint_uri(),
        seconds: desk.opened.elapsed().as_secs_f64(),
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
