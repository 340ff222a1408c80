//! What is printed. Commands compute values; the functions here print them, as text for people or as JSON for programs.
//!
//! - All output goes through [`mod@print`], except log lines: [`log`] writes them above the bars.
//! - [`open_screen`] shows a run while it goes on: [`bar`], [`plain`] or [`json`]. [`progress`] adds up its events,
//!   [`words`] phrases events and figures, [`summary`] phrases the start and the end.
//! - [`meter`] shows how far a long command has got.
//! - [`runs`] shows the status of runs, [`checkpoint`] the results of `whimbrel checkpoint`.

mod bar;
pub(crate) mod checkpoint;
mod json;
pub(crate) mod log;
pub(crate) mod meter;
mod plain;
pub(crate) mod print;
mod progress;
#[cfg(test)]
mod recorded;
pub(crate) mod runs;
pub(crate) mod screen;
mod summary;
pub(crate) mod terminal;
pub(crate) mod words;

use indicatif::MultiProgress;

use self::{bar::Bar, json::Json, plain::Plain, screen::Screen};

/// The screen that fits where this program's output goes.
pub(crate) fn open_screen(json: bool, bars: &MultiProgress) -> Box<dyn Screen> {
    if json {
        Box::new(Json::stdout())
    } else if terminal::on_terminal() {
        Box::new(Bar::new(bars))
    } else {
        Box::new(Plain::stdout())
    }
}
