//! Random decisions, as a function of the seed and of the question: independent of the order of requests.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A number for this seed and question.
pub(crate) fn roll(seed: u64, question: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, question).hash(&mut hasher);
    hasher.finish()
}

/// One of several, from a number.
pub(crate) fn pick<T>(number: u64, of: &[T]) -> Option<&T> {
    let index = number.checked_rem(of.len() as u64)?;
    of.get(index as usize)
}
