//! Messages to the coordinator.

use tokio::sync::mpsc;
use whimbrel_member::{Cause, Report};
use whimbrel_proto::v1::{self, worker_message::Message};

/// Sends messages to the coordinator while the control stream is open, from any thread. Later messages are dropped:
/// that the stream has ended shows in the requests.
#[derive(Clone, Debug)]
pub(crate) struct Outbox(pub(crate) mpsc::WeakUnboundedSender<v1::WorkerMessage>);

impl Outbox {
    pub(crate) fn send(&self, message: Message) {
        if let Some(outgoing) = self.0.upgrade() {
            // The queue has no limit of its own, but a coordinator that reads nothing is given up after 15 s.
            let _dropped = outgoing.send(v1::WorkerMessage { message: Some(message) });
        }
    }

    /// Sends what the worker decided to report.
    pub(crate) fn report(&self, report: Report) {
        self.send(message(report));
    }
}

fn message(report: Report) -> Message {
    match report {
        Report::StepApplied { generation, step, loss, computed_in, reduced_in, skipped } => {
            let (compute_seconds, reduce_seconds) = (computed_in.as_secs_f64(), reduced_in.as_secs_f64());
            Message::StepApplied(v1::StepApplied {
                generation,
                step,
                loss,
                compute_seconds,
                reduce_seconds,
                skipped,
            })
        }
        Report::Evaluated { generation, step, val_loss } => {
            Message::Evaluated(v1::Evaluated { generation, step, val_loss })
        }
        Report::SliceFailed { generation, step, reason } => {
            Message::SliceFailed(v1::SliceFailed { generation, step, reason })
        }
        Report::RestoreFailed { generation, manifest, damaged, reason } => {
            Message::RestoreFailed(v1::RestoreFailed { generation, manifest, damaged, reason })
        }
        Report::Halted { generation, step, cause } => {
            let cause = match cause {
                Cause::Agreed => v1::halted::Cause::Agreed(v1::Agreed {}),
                Cause::Broken { reason, suspect } => {
                    v1::halted::Cause::Broken(v1::Broken { reason, suspect: suspect.map(|worker| worker.0) })
                }
            };
            Message::Halted(v1::Halted { generation, step, cause: Some(cause) })
        }
        Report::Completed { generation, step, state, loss, val_loss } => {
            Message::Completed(v1::Completed { generation, step, state: state.to_vec(), loss, val_loss })
        }
    }
}
