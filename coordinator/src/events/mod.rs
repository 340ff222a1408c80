//! What the core has to say, as watchers and clients hear it.

use std::time::Duration;

use whimbrel_core::{Bound, End, Interval, Notice, Outcome, Phase, RunView};
use whimbrel_plan::{NodeId, Origin};
use whimbrel_proto::v1::{self, run_event::Event};

use crate::driver::hosted_run::HostedRun;

/// What a run does whose end is written.
pub(crate) const PARTING: &str = "its replicas get what they lack of it";

/// How a run stands.
pub(crate) fn status(
    hosted: &HostedRun,
    view: RunView,
    node_name: impl Fn(NodeId) -> String,
) -> v1::RunStatus {
    let workers = view.workers.into_iter().map(|worker| v1::WorkerStatus {
        worker: worker.worker.0,
        rank: worker.rank,
        pid: worker.pid.unwrap_or(0),
        node: node_name(worker.node),
        state: worker.state.to_owned(),
        share: worker.share,
    });
    v1::RunStatus {
        run: hosted.id().to_string(),
        name: hosted.spec.name.clone(),
        uri: hosted.dir.uri().to_owned(),
        phase: phase(view.phase).into(),
        detail: if hosted.parting && view.phase == Phase::Stopping {
            PARTING.to_owned()
        } else {
            view.detail
        },
        step: view.step,
        steps: hosted.spec.train.steps,
        generation: view.generation,
        epoch: view.epoch,
        workers: workers.collect(),
        loss: view.loss,
        val_loss: view.val_loss,
        checkpoint: view.checkpoint,
        workers_min: hosted.spec.workers.min,
        workers_max: hosted.spec.workers.max,
        interval: view.interval.map_or_else(|| hosted.spec.checkpoint.every.to_string(), interval),
        replicas: hosted.replicas(),
        save_failure: view
            .save_failure
            .map(|failure| format!("step {}: {}", failure.step, failure.reason))
            .unwrap_or_default(),
    }
}

/// A notice as an event.
pub(crate) fn event(hosted: &mut HostedRun, notice: Notice, node_name: impl Fn(NodeId) -> String) -> Event {
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
            Event::Step(hosted.step_event(step, generation, workers, loss))
        }
        Notice::Evaluated { step, val_loss } => Event::Evaluation(v1::EvaluationEvent { step, val_loss }),
        Notice::Interval(now) => {
            Event::Interval(v1::IntervalEvent { seconds: now.every.as_secs_f64(), words: interval(now) })
        }
        Notice::Warning { text, tail } => Event::Warning(v1::WarningEvent { text, tail }),
        Notice::Phase { phase: now, detail } => {
            Event::Phase(v1::PhaseEvent { phase: phase(now).into(), detail })
        }
        Notice::Ended(end) => Event::Ended(ended(hosted, end)),
    }
}

fn ended(hosted: &HostedRun, end: End) -> v1::EndedEvent {
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
        checkpoint: hosted.checkpoint_uri(),
        seconds: hosted.opened.elapsed().as_secs_f64(),
        replicas: hosted.replicas(),
    }
}

/// An interval that the core chose, and what it comes from: `auto: every 4m 10s = √(2 × 0.8 s × 10.9 h)`.
fn interval(interval: Interval) -> String {
    let whole = Duration::from_secs(interval.every.as_secs_f64().round() as u64);
    let every = humantime::format_duration(whole);
    let Some(cost) = interval.cost else {
        return format!("auto: the first after {every}, to see what one costs");
    };
    let root = format!("√(2 × {} × {})", figure(cost), figure(interval.between_failures));
    match interval.bound {
        None => format!("auto: every {every} = {root}"),
        Some(Bound::SaveTakes) => {
            format!("auto: every {every}, as long as a save takes, which is more than {root}")
        }
        Some(Bound::Limit) => format!("auto: every {every}, the nearest allowed to {root}"),
    }
}

/// A time with two or three digits and one unit.
fn figure(time: Duration) -> String {
    const UNITS: [(f64, &str); 4] = [(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")];
    let seconds = time.as_secs_f64();
    match UNITS.iter().find(|(unit, _)| seconds >= 2.0 * unit) {
        Some((unit, name)) => format!("{:.1} {name}", seconds / unit),
        None if seconds >= 0.1 => format!("{seconds:.1} s"),
        None => format!("{:.1} ms", seconds * 1e3),
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

/// A warning that quotes nobody's output.
pub(crate) fn warning(text: String) -> Event {
    Event::Warning(v1::WarningEvent { text, tail: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_explains_itself() {
        let chosen = |bound, seconds, cost| {
            let (every, cost) = (Duration::from_secs_f64(seconds), Some(Duration::from_secs_f64(cost)));
            interval(Interval { every, cost, between_failures: Duration::from_secs(39_240), bound })
        };
        assert_eq!(chosen(None, 250.57, 0.8), "auto: every 4m 11s = √(2 × 0.8 s × 10.9 h)");
        assert_eq!(
            chosen(Some(Bound::SaveTakes), 900.0, 0.012),
            "auto: every 15m, as long as a save takes, which is more than √(2 × 12.0 ms × 10.9 h)"
        );
        assert_eq!(
            chosen(Some(Bound::Limit), 10.0, 0.0),
            "auto: every 10s, the nearest allowed to √(2 × 0.0 ms × 10.9 h)"
        );
        let every = Duration::from_secs(60);
        let first = Interval { every, cost: None, between_failures: every, bound: None };
        assert_eq!(interval(first), "auto: the first after 1m, to see what one costs");
    }

    #[test]
    fn figures_have_one_unit() {
        let figures = [0.0004, 0.25, 1.5, 100.0, 250.0, 7200.0, 1e6]
            .map(|seconds| figure(Duration::from_secs_f64(seconds)));
        assert_eq!(figures, ["0.4 ms", "0.2 s", "1.5 s", "100.0 s", "4.2 min", "2.0 h", "11.6 d"]);
    }
}
