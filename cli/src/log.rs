//! Log lines, on stderr, and never through the middle of a progress bar.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::MakeWriter};

use crate::{args::Command, screen};

/// The variable that says what is logged, in the words of `tracing_subscriber::EnvFilter`.
pub(crate) const VARIABLE: &str = "WHIMBREL_LOG";

/// Starts logging: information for servers, warnings for everything else; a level more for each `-v`; what
/// `WHIMBREL_LOG` says above all.
pub(crate) fn start(command: &Command, verbose: u8, bars: MultiProgress) {
    let quietest = if command.is_server() { 1 } else { 0 };
    let level = match quietest + verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Other people's crates say little of use below a warning, and h2 says a great deal of it.
    let default = format!("warn,{}", OURS.map(|target| format!("{target}={level}")).join(","));
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal() && !screen::no_color())
        .with_target(verbose > 0)
        .with_writer(AboveBars(bars))
        .init();
}

const OURS: [&str; 5] =
    ["whimbrel", "whimbrel_agent", "whimbrel_coordinator", "whimbrel_core", "whimbrel_store"];

/// Takes the bars off the terminal while a line is written.
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
