//! Bandwidths, as `checkpoint.bandwidth` and the `--bandwidth` flags take them: `"100 MB/s"`.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// The lowest bandwidth allowed. Below it, one pack would take most of a day.
const LOWEST: u64 = 1_000;
/// The highest bandwidth allowed. A higher one is faster than any network, so it is a typing error.
const HIGHEST: u64 = 1_000_000_000_000;

/// Name, numerator and denominator (in bytes) of each unit. `Display` uses the first four.
const UNITS: [(&str, u64, u64); 12] = [
    ("GB/s", 1_000_000_000, 1),
    ("MB/s", 1_000_000, 1),
    ("kB/s", 1_000, 1),
    ("B/s", 1, 1),
    ("GiB/s", 1 << 30, 1),
    ("MiB/s", 1 << 20, 1),
    ("KiB/s", 1 << 10, 1),
    ("KB/s", 1_000, 1),
    ("Gbit/s", 1_000_000_000, 8),
    ("Mbit/s", 1_000_000, 8),
    ("kbit/s", 1_000, 8),
    ("Kbit/s", 1_000, 8),
];

/// A rate from 1 kB/s to 1000 GB/s. Written `"100 MB/s"`, `"1.5 GiB/s"` or `"50 Mbit/s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bandwidth(NonZeroU64);

/// The text is not a bandwidth.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBandwidth {
    /// It is not a number with a unit.
    #[error(
        "{0:?} is not a bandwidth; write a number and one of B/s, kB/s, MB/s, GB/s, MiB/s, GiB/s, Mbit/s, Gbit/s, as in \"100 MB/s\""
    )]
    Unreadable(String),
    /// Under 1 kB/s, or over 1000 GB/s.
    #[error("{0:?} is out of range; use a bandwidth from 1 kB/s to 1000 GB/s")]
    OutOfRange(String),
}

impl Bandwidth {
    /// Bytes a second.
    pub fn bytes_per_second(self) -> NonZeroU64 {
        self.0
    }
}

impl TryFrom<u64> for Bandwidth {
    type Error = InvalidBandwidth;

    /// From bytes a second.
    fn try_from(bytes: u64) -> Result<Self, InvalidBandwidth> {
        match NonZeroU64::new(bytes) {
            Some(rate) if (LOWEST..=HIGHEST).contains(&bytes) => Ok(Self(rate)),
            _ => Err(InvalidBandwidth::OutOfRange(format!("{bytes} B/s"))),
        }
    }
}

impl fmt::Display for Bandwidth {
    /// Uses the largest decimal unit that needs no fraction, so that parsing the text gives the same rate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.get();
        let fits = |&&(_, size, _): &&(&str, u64, u64)| bytes.is_multiple_of(size);
        match UNITS.iter().take(4).find(fits) {
            Some((unit, size, _)) => write!(f, "{} {unit}", bytes / size),
            None => write!(f, "{bytes} B/s"),
        }
    }
}

impl FromStr for Bandwidth {
    type Err = InvalidBandwidth;

    fn from_str(text: &str) -> Result<Self, InvalidBandwidth> {
        let short = || text.chars().take(60).collect::<String>();
        let unreadable = || InvalidBandwidth::Unreadable(short());
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let unit = unit.trim_start();
        let (_, size, parts) = UNITS.iter().find(|(name, ..)| *name == unit).ok_or_else(unreadable)?;
        let bytes = match number.parse::<u64>() {
            // Whole numbers are converted exactly, so that what `Display` writes is read back unchanged.
            Ok(whole) => u128::from(whole) * u128::from(*size) / u128::from(*parts),
            Err(_) => {
                let number: f64 = number.parse().map_err(|_| unreadable())?;
                // A cast from float to integer saturates.
                (number * *size as f64 / *parts as f64) as u128
            }
        };
        let bytes = u64::try_from(bytes).map_err(|_| InvalidBandwidth::OutOfRange(short()))?;
        Self::try_from(bytes).map_err(|_| InvalidBandwidth::OutOfRange(short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> u64 {
        text.parse::<Bandwidth>().unwrap().bytes_per_second().get()
    }

    #[test]
    fn decimal_binary_and_bit_units_are_read() {
        assert_eq!(bytes("100 MB/s"), 100_000_000);
        assert_eq!(bytes(" 64MiB/s "), 64 << 20);
        assert_eq!(bytes("50 Mbit/s"), 6_250_000);
        assert_eq!(bytes("1.5 GB/s"), 1_500_000_000);
        assert_eq!((bytes("8 kB/s"), bytes("8 KB/s"), bytes("5000 B/s")), (8_000, 8_000, 5_000));
    }

    #[test]
    fn a_displayed_bandwidth_is_read_back() {
        for rate in [1_000, 1_001, 6_250_000, 100_000_000, 64 << 20, HIGHEST] {
            let bandwidth = Bandwidth::try_from(rate).unwrap();
            assert_eq!(bandwidth.to_string().parse(), Ok(bandwidth), "{bandwidth}");
        }
        assert_eq!(Bandwidth::try_from(100_000_000).unwrap().to_string(), "100 MB/s");
        assert_eq!(Bandwidth::try_from(6_250_000).unwrap().to_string(), "6250 kB/s");
    }

    #[test]
    fn other_text_is_refused_with_the_way_to_write_a_bandwidth() {
        for text in ["", "100", "100 MB", "100 mb/s", "fast", "1..2 MB/s", "-1 MB/s", "MB/s", "NaN MB/s"] {
            let error = text.parse::<Bandwidth>().unwrap_err();
            assert!(matches!(error, InvalidBandwidth::Unreadable(_)), "{text}: {error}");
        }
        for text in
            ["0 MB/s", "999 B/s", "1001 GB/s", "99999999999999999999 GB/s", "18446744073709551615 GiB/s"]
        {
            let error = text.parse::<Bandwidth>().unwrap_err();
            assert!(matches!(error, InvalidBandwidth::OutOfRange(_)), "{text}: {error}");
        }
    }
}
