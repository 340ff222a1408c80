//! Reading several ranges of a state, one after another, in few requests. Exports and diffs read this way.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc;
use whimbrel_state::Manifest;

use crate::{
    checkpoint::{restore::RestoreError, sources::Sources, state_reader::StateReader},
    object::Limits,
};

/// Two ranges with at most this many bytes between them are read as one: that costs less than another request.
const MAX_GAP: usize = 8 << 20;

/// Bytes of a state, and the byte of it at which they start.
pub(crate) type StatePart = (usize, Bytes);

/// Joins ranges that overlap, touch, or have little between them. They must be in the order of their starts.
pub(crate) fn join_ranges(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(MAX_GAP) => {
                last.end = last.end.max(range.end)
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Reads ranges of a checkpoint's state and sends them to `parts`, each part verified first. Ends early if the receiver
/// is gone. `progress` is called with the number of bytes of each part sent.
pub(crate) async fn read_ranges(
    (sources, manifest): (&Sources, &Manifest),
    ranges: Vec<Range<usize>>,
    limits: &Limits,
    parts: mpsc::Sender<StatePart>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(), RestoreError> {
    for range in ranges {
        let mut at = range.start;
        let mut reader = StateReader::new(sources, manifest, range.start as u64..range.end as u64, limits)?;
        while let Some(bytes) = reader.next().await? {
            let (start, length) = (at, bytes.len());
            at += length;
            if parts.send((start, bytes)).await.is_err() {
                return Ok(());
            }
            progress(length as u64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_with_little_between_them_are_joined() {
        let far = MAX_GAP + 100;
        let ranges = [0..5, 5..9, 7..8, 20..20, 30..40, far + 40..far + 50, far + 51..far + 52];
        assert_eq!(join_ranges(ranges), [0..40, far + 40..far + 52]);
    }
}
