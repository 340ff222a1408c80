//! What tells a data set apart from another one of the same size.

use std::collections::BTreeMap;

/// A data set's fingerprint: what was looked at, such as `sample 17`, with a hash or another short text that stands for
/// it. Empty for programs that give none.
pub type Fingerprint = BTreeMap<String, String>;

/// What differs between the fingerprints of what should be one data set. Only what both have is compared.
pub fn difference(one: &Fingerprint, other: &Fingerprint) -> Option<String> {
    one.iter().find_map(|(what, known)| {
        let found = other.get(what).filter(|found| *found != known)?;
        Some(format!("{what} ({known} and {found})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_fingerprints_have_is_compared() {
        let of = |entries: &[(&str, &str)]| -> Fingerprint {
            entries.iter().map(|&(what, known)| (what.to_owned(), known.to_owned())).collect()
        };
        let known = of(&[("sample 0", "a1"), ("sample 9", "b2")]);
        assert_eq!(difference(&known, &known), None);
        assert_eq!(difference(&known, &of(&[])), None);
        assert_eq!(difference(&known, &of(&[("version", "3")])), None);
        let other = of(&[("sample 0", "a1"), ("sample 9", "c3")]);
        assert_eq!(difference(&known, &other).unwrap(), "sample 9 (b2 and c3)");
    }
}
