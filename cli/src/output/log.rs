//! Log lines, on stderr, above the progress bars.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use indicatif::MultiProgress;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::terminal;

/// The variable that selects what is logged: levels by target, in the syntax of `tracing_subscriber::filter::Targets`.
const VARIABLE: &str = "WHIMBREL_LOG";

/// Starts logging. A server logs from level `info`, any other command from `warn`; each `-v` adds a level. `WHIMBREL_LOG`
/// replaces all of this.
pub(crate) fn start(is_server: bool, verbose: u8, bars: MultiProgress) {
    let level = match u8::from(is_server).saturating_add(verbose) {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Below a warning, other crates log little of use, and h2 logs very much of it.
    let default =
        || Targets::new().with_default(LevelFilter::WARN).with_targets(OURS.map(|target| (target, level)));
    let chosen = env::var(VARIABLE).ok().and_then(|text| text.parse::<Targets>().ok());
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(io::stderr().is_terminal() && !terminal::no_color())
        .with_target(verbose > 0)
        .with_writer(AboveBars(bars))
        .finish()
        .with(chosen.unwrap_or_else(default))
        .init();
}

/// The crates whose level is set.
const OURS: [&str; 5] =
    ["whimbrel_agent", "whimbrel_cli", "whimbrel_coordinator", "whimbrel_core", "whimbrel_store"];

/// Hides the bars while a line is written.
struct AboveBars(MultiProgress);

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0.clone())
    }
}

struct Line(MultiProgress);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
