//! Comparing the bytes of two states, tensor by tensor, as they arrive.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use whimbrel_state::Layout;

use crate::{
    checkpoint::StatePart,
    diff::{unequal_parts::UnequalPart, values::ValueDifference},
};

/// Bytes compared at a time.
const STRIDE: usize = 256 << 10;

/// Compares parts of two states. Returns the tensors that differ, by their index in *a*. Blocks.
///
/// It ends early if a feed ends early, which happens only if the read that fills it fails; that read reports the error.
pub(super) fn compare(
    layout: &Layout,
    parts: &[UnequalPart],
    mut a: StateFeed,
    mut b: StateFeed,
) -> Vec<(usize, ValueDifference)> {
    let mut changed: Vec<(usize, ValueDifference)> = Vec::new();
    for part in parts {
        for (index, piece) in layout.pieces(part.a.clone()) {
            let dtype = layout.tensors()[index].dtype;
            let mut difference = ValueDifference::default();
            let tensor = layout.range_of(index).start;
            let mut at = tensor + piece.start - part.a.start;
            let end = tensor + piece.end - part.a.start;
            while at < end {
                let next = end.min(at + STRIDE);
                let (Some(a), Some(b)) = (a.take(&part.a, at..next), b.take(&part.b, at..next)) else {
                    return changed;
                };
                difference.count(dtype, &a, &b);
                at = next;
            }
            match changed.last_mut() {
                _ if difference == ValueDifference::default() => {}
                Some((last, known)) if *last == index => known.add(difference),
                _ => changed.push((index, difference)),
            }
        }
    }
    changed
}

/// The bytes of a state that arrive in order over a channel.
pub(super) struct StateFeed {
    parts: mpsc::Receiver<StatePart>,
    /// The byte of the state at which `ahead` starts.
    at: usize,
    ahead: Bytes,
}

impl StateFeed {
    pub(super) fn new(parts: mpsc::Receiver<StatePart>) -> Self {
        Self { parts, at: 0, ahead: Bytes::new() }
    }

    /// The bytes `stride`, counted from the start of `part`; `None` if the channel closes first. Bytes before them are
    /// dropped. Blocks.
    fn take(&mut self, part: &Range<usize>, stride: Range<usize>) -> Option<Bytes> {
        let (start, length) = (part.start + stride.start, stride.len());
        while self.at + self.ahead.len() <= start {
            (self.at, self.ahead) = self.parts.blocking_recv()?;
        }
        self.split(start - self.at);
        if self.ahead.len() >= length {
            return Some(self.split(length));
        }
        let mut taken = BytesMut::with_capacity(length);
        while taken.len() < length {
            if self.ahead.is_empty() {
                (self.at, self.ahead) = self.parts.blocking_recv()?;
            }
            let part = self.split(self.ahead.len().min(length - taken.len()));
            taken.extend_from_slice(&part);
        }
        Some(taken.freeze())
    }

    fn split(&mut self, length: usize) -> Bytes {
        self.at += length;
        self.ahead.split_to(length)
    }
}
