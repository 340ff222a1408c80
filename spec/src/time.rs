//! Durations, as `workers.step_timeout` and intervals in time take them: `"5m"`.

use std::time::Duration;

/// The shortest duration allowed.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest duration allowed. A much longer one would overflow when added to the clock.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The text is not a duration that a spec may contain.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidTime {
    /// The text does not read as a duration.
    #[error("{text:?} is not a time; write one such as \"90s\", \"5m\" or \"1h 30m\"")]
    Unreadable {
        /// The text, cut short.
        text: String,
        /// The parser's error.
        #[source]
        source: humantime::DurationError,
    },
    /// Under 1 ms, or over 30 days.
    #[error("{0:?} is out of range; use a time from 1ms to 30days")]
    OutOfRange(String),
}

/// Reads a duration such as `"5m"` or `"1h 30m"`.
pub(crate) fn parse(text: &str) -> Result<Duration, InvalidTime> {
    let short = || text.chars().take(60).collect();
    let time = humantime::parse_duration(text)
        .map_err(|source| InvalidTime::Unreadable { text: short(), source })?;
    if (SHORTEST..=LONGEST).contains(&time) { Ok(time) } else { Err(InvalidTime::OutOfRange(short())) }
}

/// Writes a duration in a form that [`parse`] reads back.
pub(crate) fn write(time: Duration) -> impl std::fmt::Display {
    humantime::format_duration(time)
}
