//! Intervals, as `evaluate.every`, `checkpoint.every` and `checkpoint.keep.every` take them: in steps or in time.

use std::{cmp::Ordering, fmt, str::FromStr, time::Duration};

use crate::time::{self, InvalidTime};

/// How often something is done. Written `"200 steps"` or, as a time, `"5m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Every {
    /// After this many steps; at least 1.
    Steps(u64),
    /// After this much time; 1 ms to 30 days.
    Time(Duration),
}

/// How often checkpoints are taken. Written like [`Every`], or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckpointEvery {
    /// At a fixed interval.
    Fixed(Every),
    /// At the interval that costs least, computed from the measured cost of a checkpoint and the rate of failures.
    Auto,
}

/// The text is neither a number of steps nor a time.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidEvery {
    /// It ends in `steps`, but the part before is not a whole number of at least 1.
    #[error("{0:?} is not a number of steps; write it as \"200 steps\", with a whole number of at least 1")]
    Steps(String),
    /// It does not read as either.
    #[error("{text:?} is neither a number of steps nor a time; write it as \"200 steps\" or \"5m\"")]
    Neither {
        /// The text, cut short.
        text: String,
        /// Why it does not read as a time.
        #[source]
        source: InvalidTime,
    },
    /// It is a time that is too short or too long.
    #[error(transparent)]
    Time(InvalidTime),
}

impl Every {
    /// Compares two intervals; `None` if one is in steps and the other in time.
    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Steps(one), Self::Steps(other)) => Some(one.cmp(&other)),
            (Self::Time(one), Self::Time(other)) => Some(one.cmp(&other)),
            (Self::Steps(_), Self::Time(_)) | (Self::Time(_), Self::Steps(_)) => None,
        }
    }
}

impl fmt::Display for CheckpointEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(every) => every.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for CheckpointEvery {
    type Err = InvalidEvery;

    fn from_str(text: &str) -> Result<Self, InvalidEvery> {
        if text.trim() == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Fixed) }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(1) => f.write_str("1 step"),
            Self::Steps(steps) => write!(f, "{steps} steps"),
            Self::Time(time) => time::write(*time).fmt(f),
        }
    }
}

impl FromStr for Every {
    type Err = InvalidEvery;

    fn from_str(text: &str) -> Result<Self, InvalidEvery> {
        let short = || text.chars().take(60).collect();
        let trimmed = text.trim();
        if let Some(number) = trimmed.strip_suffix("steps").or_else(|| trimmed.strip_suffix("step")) {
            return match number.trim_end().parse() {
                Ok(steps) if steps > 0 => Ok(Self::Steps(steps)),
                _ => Err(InvalidEvery::Steps(short())),
            };
        }
        match time::parse(trimmed) {
            Ok(time) => Ok(Self::Time(time)),
            Err(source @ InvalidTime::Unreadable { .. }) => {
                Err(InvalidEvery::Neither { text: short(), source })
            }
            Err(source @ InvalidTime::OutOfRange(_)) => Err(InvalidEvery::Time(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_displayed_interval_is_read_back() {
        let times = [1, 999, 1000, 90_000, 300_000, 5_400_000, 30 * 86_400_000].map(Duration::from_millis);
        let steps = [1, 2, 200, u64::MAX].map(Every::Steps);
        for every in times.map(Every::Time).into_iter().chain(steps) {
            assert_eq!(every.to_string().parse(), Ok(every), "{every}");
        }
        assert_eq!(Every::Steps(200).to_string(), "200 steps");
        assert_eq!(Every::Time(Duration::from_secs(300)).to_string(), "5m");
    }

    #[test]
    fn spaces_are_optional() {
        assert_eq!(" 10steps ".parse(), Ok(Every::Steps(10)));
        assert_eq!("5 min".parse(), Ok(Every::Time(Duration::from_secs(300))));
        assert_eq!("1h30m".parse(), Ok(Every::Time(Duration::from_secs(5400))));
    }

    #[test]
    fn other_text_is_refused_with_the_way_to_write_an_interval() {
        for (text, message) in [
            ("", r#""" is neither a number of steps nor a time; write it as "200 steps" or "5m""#),
            ("200", r#""200" is neither a number of steps nor a time; write it as "200 steps" or "5m""#),
            (
                "0 steps",
                r#""0 steps" is not a number of steps; write it as "200 steps", with a whole number of at least 1"#,
            ),
            (
                "-3 steps",
                r#""-3 steps" is not a number of steps; write it as "200 steps", with a whole number of at least 1"#,
            ),
            ("0s", r#""0s" is out of range; use a time from 1ms to 30days"#),
            ("1 year", r#""1 year" is out of range; use a time from 1ms to 30days"#),
        ] {
            assert_eq!(text.parse::<Every>().unwrap_err().to_string(), message);
        }
    }
}
