//! Where the library's log goes.

use tracing_subscriber::EnvFilter;

/// The environment variable that says what is logged, as `tracing-subscriber` filters do: `debug`,
/// `whimbrel_worker=trace,warn`.
pub const LOG: &str = "WHIMBREL_LOG";

/// Sends the log to stderr, filtered by [`LOG`]; without it, warnings and errors. A program that has set up `tracing`
/// keeps its own setup.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.try_init().is_err() {
        tracing::debug!("the program has set up its own log");
    }
}
