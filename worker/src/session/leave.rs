//! Leaving a generation: the connections are closed, then the coordinator learns of it.

use whimbrel_collective::Error;
use whimbrel_member::{Event, Report};
use whimbrel_proto::with_causes;

use crate::session::{Session, SessionError, misuse};

impl Session {
    /// An operation of the group failed: this worker leaves its generation. Misuse is the program's fault, and ends the
    /// session.
    pub(super) fn broken(&mut self, error: &Error) -> Result<(), SessionError> {
        if let Error::Misuse(_) = error {
            self.group = None;
            return Err(misuse(error.to_string()));
        }
        self.handle(Event::Broken { reason: with_causes(error), suspect: error.suspect() });
        Ok(())
    }

    /// Sends what the worker has to report. If it has left its generation, its connections are closed first, so that
    /// the peers notice at once.
    pub(super) fn report(&mut self) {
        if self.worker.generation().is_none() {
            self.group = None;
        }
        self.control.set_progress(self.worker.last_generation(), self.worker.held().step());
        for report in self.worker.take_reports() {
            match &report {
                Report::Halted { generation, step, cause } => {
                    tracing::info!(generation, step, ?cause, "left a generation");
                }
                Report::RestoreFailed { generation, manifest, damaged, reason } => {
                    tracing::warn!(generation, manifest, damaged, reason, "a checkpoint could not be read");
                }
                _ => {}
            }
            self.control.outbox().report(report);
        }
    }
}
