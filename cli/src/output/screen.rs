//! What a person, or a program, sees of a run.
//!
//! Three screens show the same events: [`Bar`](super::bar::Bar) on a terminal, [`Plain`](super::plain::Plain) lines elsewhere,
//! [`Json`](super::json::Json) lines for programs. [`open_screen`](super::open_screen) chooses.

use whimbrel_proto::v1::{EndedEvent, RunStatus, run_event::Event};

/// Shows a run.
pub(crate) trait Screen: Send {
    /// Shows the run's status: at first, and after a gap in the events.
    fn status(&mut self, status: &RunStatus);

    /// Shows an event. A status and the run's end have their own methods.
    fn event(&mut self, event: &Event);

    /// Shows a message of this program to its user.
    fn note(&mut self, text: &str);

    /// Shows the end of the run here. `next` are commands that the user may want to give now.
    fn end(&mut self, ended: &EndedEvent, next: &[String]);
}
