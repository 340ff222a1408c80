//! Sizes with units: `5GB`, `64 MiB`.

use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// The text is not a size.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a size; write it as 500MB, 5 GB or 64 MiB (kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of 1024)"
)]
pub(crate) struct InvalidSize(String);

const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize(text.chars().take(80).collect());
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let bytes = match number.parse::<u64>() {
            Ok(number) => number.checked_mul(factor),
            // A fraction such as 1.5. The rounding of f64 does not matter for such sizes.
            Err(_) => {
                let bytes = number.parse::<f64>().map_err(|_| invalid())? * factor as f64;
                (bytes < u64::MAX as f64).then_some(bytes as u64)
            }
        };
        bytes.map(Self).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units_are_parsed() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("64 MiB", 64 << 20),
            ("1.5kB", 1500),
            ("0", 0),
            ("12 b", 12),
            ("2tib", 2 << 40),
        ] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes), "{text}");
        }
        for text in ["", "GB", "5 XB", "-1", "1e9", "1.2.3 MB", "99999999999 TB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
