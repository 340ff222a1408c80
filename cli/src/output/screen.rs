//! What a person, or a program, sees of a run.
//!
//! Three screens show the same events: [`Bar`] on a terminal, [`Plain`] lines elsewhere, [`Json`] lines for programs.

use std::{
    env,
    io::{self, IsTerminal},
};

use indicatif::MultiProgress;
use whimbrel_proto::v1::{EndedEvent, RunStatus, run_event::Event};

use super::{bar::Bar, json::Json, plain::Plain};

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

/// The screen that fits where this program's output goes.
pub(crate) fn open(json: bool, bars: &MultiProgress) -> Box<dyn Screen> {
    if json {
        Box::new(Json::stdout())
    } else if on_terminal() {
        Box::new(Bar::new(bars))
    } else {
        Box::new(Plain::stdout())
    }
}

/// Whether stdout and stderr are a terminal on which a line can be drawn over.
pub(crate) fn on_terminal() -> bool {
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && io::stderr().is_terminal() && !dumb
}

/// Whether the user turned colours off: <https://no-color.org>.
pub(crate) fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
