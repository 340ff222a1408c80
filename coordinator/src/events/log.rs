//! The coordinator's own log of the events that watchers receive.

use whimbrel_plan::RunId;
use whimbrel_proto::v1::{self, run_event::Event};

/// Logs an event of a run, unless it is a frequent one: steps, evaluations, phases and started workers are left out.
pub(crate) fn log_event(run: &RunId, event: &Event) {
    match event {
        Event::Warning(v1::WarningEvent { text, .. }) => tracing::warn!(%run, "{text}"),
        Event::Generation(formed) => {
            tracing::info!(%run, generation = formed.generation, workers = formed.workers, step = formed.step, "generation formed");
        }
        Event::Exit(exit) => {
            tracing::info!(%run, worker = exit.worker, reason = exit.reason, "worker exited");
        }
        Event::Replicated(v1::ReplicatedEvent { replica: Some(replica), bytes, .. }) => {
            tracing::info!(%run, replica = replica.uri, checkpoint = replica.checkpoint, bytes, "replicated");
        }
        Event::Ended(ended) => {
            tracing::info!(%run, phase = ended.phase().as_str_name(), step = ended.step, reason = ended.reason, "run ended");
        }
        _ => {}
    }
}
