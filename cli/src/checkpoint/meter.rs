//! How far a long command has got in bytes: a bar on a terminal, a line now and then elsewhere, events for programs.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    print::Printer,
    screen::{self, words},
};

/// Between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Between two events.
const EVENT: Duration = Duration::from_secs(1);

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Whoever looks at the terminal, or reads the log.
    People,
    /// A program that reads events.
    Programs,
    /// A program that waits for the result alone.
    Nobody,
}

/// Shows progress in bytes.
pub(super) struct Meter {
    what: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    said: Instant,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines,
    Events,
    Nothing,
}

/// How far it is, for programs.
#[derive(Serialize)]
struct Progress {
    event: &'static str,
    bytes: u64,
    total: u64,
    bytes_per_second: f64,
    seconds_left: Option<f64>,
}

impl Audience {
    /// For a command whose `--json` is its result.
    pub(super) fn of(json: bool) -> Self {
        if json { Self::Nobody } else { Self::People }
    }
}

impl Meter {
    /// `what` is being done, as in "copying".
    pub(super) fn new(what: &'static str, total: u64, audience: Audience, bars: &MultiProgress) -> Self {
        let shown = match audience {
            Audience::People if screen::on_terminal() => {
                let bar = ProgressBar::new(total).with_style(style()).with_message(what);
                Shown::Bar(bars.add(bar))
            }
            Audience::People => Shown::Lines,
            Audience::Programs => Shown::Events,
            Audience::Nobody => Shown::Nothing,
        };
        let now = Instant::now();
        Self { what, total, done: 0, started: now, said: now, shown }
    }

    /// So many more bytes are done.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let since = self.said.elapsed();
        match &self.shown {
            Shown::Bar(bar) => bar.inc(bytes),
            Shown::Lines if since >= LINE => self.line(),
            Shown::Events if since >= EVENT => self.event(),
            _ => return,
        }
        self.said = Instant::now();
    }

    /// It is over, well or badly: the bar goes, and programs hear how far it got.
    pub(super) fn finish(self) {
        match &self.shown {
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Lines | Shown::Nothing => {}
            Shown::Events => self.event(),
        }
    }

    /// Bytes a second, and the time that the rest takes at that rate.
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
            HumanBytes(self.done),
            HumanBytes(self.total),
            HumanBytes(rate as u64)
        ));
    }

    fn event(&self) {
        let (bytes_per_second, left) = self.pace();
        Printer::stdout().json(&Progress {
            event: "progress",
            bytes: self.done,
            total: self.total,
            bytes_per_second,
            seconds_left: left.map(|left| left.as_secs_f64()),
        });
    }
}

fn style() -> ProgressStyle {
    let template = "{msg} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    // The template is a constant; were it wrong, indicatif's own would do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
