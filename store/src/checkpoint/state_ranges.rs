//! Parts of a state that are read one after another, in as few goes as there can be.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc;
use whimbrel_state::Manifest;

use crate::checkpoint::{restore::RestoreError, save::Limits, sources::Sources, state_reader::StateReader};

/// What lies between two parts is read with them if it is no longer than this: less than what asking anew would cost.
const GAP: usize = 8 << 20;

/// Bytes of a state, and the byte of it at which they start.
pub(crate) type Part = (usize, Bytes);

/// Joins ranges, given in order, that overlap, touch, or have little between them.
pub(crate) fn join(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP) => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Reads ranges of a checkpoint's state, each verified before it is passed on, until all are read or nobody takes them.
/// `progress` is told the bytes passed on.
pub(crate) async fn read(
    (sources, manifest): (&Sources, &Manifest),
    ranges: Vec<Range<usize>>,
    limits: &Limits,
    parts: mpsc::Sender<Part>,
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
    fn what_is_close_is_read_in_one_go() {
        let far = GAP + 100;
        let ranges = [0..5, 5..9, 7..8, 20..20, 30..40, far + 40..far + 50, far + 51..far + 52];
        assert_eq!(join(ranges), [0..40, far + 40..far + 52]);
    }
}
