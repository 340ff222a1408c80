//! Where the library's log goes.

use std::env;

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// The environment variable that selects what is logged: levels by target, in the syntax of
/// [`tracing_subscriber::filter::Targets`]: `debug`, or `whimbrel_worker=trace,warn`.
pub const LOG: &str = "WHIMBREL_LOG";

/// Sends the library's log to stderr, filtered by [`LOG`]; without it, warnings and errors. A program that has set up `tracing`
/// keeps its own setup.
pub fn start() {
    let chosen = env::var(LOG).ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = chosen.unwrap_or_else(|| Targets::new().with_default(Level::WARN));
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    if log.finish().with(targets).try_init().is_err() {
        tracing::debug!("the program has set up its own log");
    }
}
