//! The progress of a long command in bytes: a bar on a terminal, a line now and then elsewhere, events for programs.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::{
    print::Printer,
    terminal,
    words::{self, bytes},
};

/// Between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Between two events.
const EVENT: Duration = Duration::from_secs(1);

/// Who reads the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A person, at the terminal or in a log.
    People,
    /// A program that reads events.
    Programs,
    /// A program that reads the result only.
    ResultOnly,
}

/// Shows progress in bytes.
pub(crate) struct Meter {
    what: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    /// When progress was last shown.
    shown_at: Instant,
    way: Way,
}

/// How progress is shown.
enum Way {
    Bar(ProgressBar),
    Lines,
    Events,
    Nothing,
}

impl Audience {
    /// For a command that prints only its result with `--json`.
    pub(crate) fn of(json: bool) -> Self {
        if json { Self::ResultOnly } else { Self::People }
    }
}

impl Meter {
    /// `what` names the work, such as "copying"; `total` is its size in bytes.
    pub(crate) fn new(what: &'static str, total: u64, audience: Audience, bars: &MultiProgress) -> Self {
        let way = match audience {
            Audience::People if terminal::on_terminal() => {
                let bar = ProgressBar::new(total).with_style(style()).with_message(what);
                Way::Bar(bars.add(bar))
            }
            Audience::People => Way::Lines,
            Audience::Programs => Way::Events,
            Audience::ResultOnly => Way::Nothing,
        };
        let now = Instant::now();
        Self { what, total, done: 0, started: now, shown_at: now, way }
    }

    /// Adds bytes that are done.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let since = self.shown_at.elapsed();
        match &self.way {
            Way::Bar(bar) => bar.inc(bytes),
            Way::Lines if since >= LINE => self.line(),
            Way::Events if since >= EVENT => self.event(),
            _ => return,
        }
        self.shown_at = Instant::now();
    }

    /// Ends the display, after success or failure: removes the bar, and writes the last event.
    pub(crate) fn finish(self) {
        match &self.way {
            Way::Bar(bar) => bar.finish_and_clear(),
            Way::Lines | Way::Nothing => {}
            Way::Events => self.event(),
        }
    }

    /// Bytes a second, and the time left at that rate.
    fn pace(&self) -> (f64, Option<Duration>) {
        let rate = self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let left = self.total.saturating_sub(self.done) as f64 / rate;
        (rate, Duration::try_from_secs_f64(left).ok())
    }

    fn line(&self) {
        let (rate, left) = self.pace();
        let percent = self.done.saturating_mul(100) / self.total.max(1);
        let left = left.map_or(String::new(), |left| format!(", {} left", words::time(left)));
        Printer::stderr().line(format!(
            "{}: {} of {} ({percent}%), {}/s{left}",
            self.what,
            bytes(self.done),
            bytes(self.total),
            bytes(rate as u64)
        ));
    }

    fn event(&self) {
        let (bytes_per_second, left) = self.pace();
        Printer::stdout().json(&json!({
            "event": "progress",
            "bytes": self.done,
            "total": self.total,
            "bytes_per_second": bytes_per_second,
            "seconds_left": left.map(|left| left.as_secs_f64()),
        }));
    }
}

fn style() -> ProgressStyle {
    let template = "{msg} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    // The template is a constant; if it were wrong, indicatif's own would do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
