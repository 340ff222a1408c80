//! Which bytes of two checkpoints have to be read to compare them: all but those that hashes prove equal.

use std::ops::Range;

use whimbrel_state::{Manifest, Pack, blocks::BLOCK};

/// A part of both states that may differ: the same number of bytes in each, in the same tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnequalPart {
    /// Bytes of state *a*.
    pub(super) a: Range<usize>,
    /// Bytes of state *b*.
    pub(super) b: Range<usize>,
}

/// The parts of the tensors `shared` that no hash proves equal, in the order of *a*. A shared tensor is given by its
/// index in both layouts.
pub(super) fn unequal_parts(a: &Manifest, b: &Manifest, shared: &[(usize, usize)]) -> Vec<UnequalPart> {
    let (packs_of_a, packs_of_b) = (PackedState::new(a), PackedState::new(b));
    let mut parts: Vec<UnequalPart> = Vec::new();
    for &(a_index, b_index) in shared {
        let (a_range, b_range) = (a.layout.range_of(a_index), b.layout.range_of(b_index));
        let size = a.layout.tensors()[a_index].dtype.size();
        let mut at = 0;
        while at < a_range.len() {
            let (a_at, b_at) = (a_range.start + at, b_range.start + at);
            let (Some(in_a), Some(in_b)) = (packs_of_a.offset_of(a_at), packs_of_b.offset_of(b_at)) else {
                break;
            };
            let (length, is_equal) = in_a.compare(&in_b);
            let end = at + length.min(a_range.len() - at);
            if !is_equal {
                // Whole elements: a block of a pack may end within one.
                let (start, end) = (at - at % size, end.next_multiple_of(size).min(a_range.len()));
                let part = UnequalPart {
                    a: a_range.start + start..a_range.start + end,
                    b: b_range.start + start..b_range.start + end,
                };
                push(&mut parts, part);
            }
            at = end;
        }
    }
    parts
}

/// Adds a part. It is joined to the last one if it continues that in both states.
fn push(parts: &mut Vec<UnequalPart>, mut part: UnequalPart) {
    if let Some(last) = parts.last_mut() {
        let overlap = last.a.end.saturating_sub(part.a.start);
        if overlap > 0 && last.b.end.saturating_sub(part.b.start) == overlap {
            part =
                UnequalPart { a: part.a.start + overlap..part.a.end, b: part.b.start + overlap..part.b.end };
        }
        if part.a.is_empty() {
            return;
        }
        if last.a.end == part.a.start && last.b.end == part.b.start {
            (last.a.end, last.b.end) = (part.a.end, part.b.end);
            return;
        }
    }
    parts.push(part);
}

/// Where the bytes of a state are in its packs.
struct PackedState<'a> {
    /// For each piece, its first byte in the state, its pack, and its first byte in the pack. In the state's order.
    pieces: Vec<(u64, &'a Pack, u64)>,
    end: u64,
}

/// Where a byte of a state is in a pack.
struct PackOffset<'a> {
    pack: &'a Pack,
    offset: u64,
    /// Bytes from here on that follow each other both in the pack and in the state.
    left: u64,
}

impl<'a> PackedState<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let pieces = manifest.packs.iter().flat_map(|pack| {
            let filled = pack.pieces.iter().filter(|piece| piece.length > 0);
            filled.map(move |piece| (piece.start, pack, piece.offset))
        });
        Self { pieces: pieces.collect(), end: manifest.layout.bytes() as u64 }
    }

    /// Where byte `at` of the state is.
    fn offset_of(&self, at: usize) -> Option<PackOffset<'a>> {
        let at = at as u64;
        let next = self.pieces.partition_point(|(start, ..)| *start <= at);
        let (start, pack, offset) = *self.pieces.get(next.checked_sub(1)?)?;
        let end = self.pieces.get(next).map_or(self.end, |(start, ..)| *start);
        Some(PackOffset { pack, offset: offset + at - start, left: end.checked_sub(at)? })
    }
}

impl PackOffset<'_> {
    /// Whether hashes prove the next bytes of both equal, and for how many bytes that answer holds.
    fn compare(&self, other: &Self) -> (usize, bool) {
        let left = self.left.min(other.left).max(1);
        if self.offset != other.offset {
            return (left as usize, false);
        }
        if self.pack.hash == other.pack.hash {
            return (left as usize, true);
        }
        // Blocks are at fixed offsets of a pack: equal hashes of blocks mean equal bytes at equal offsets.
        let index = self.offset / BLOCK;
        let end = self.pack.block(index).end.min(other.pack.block(index).end);
        let hash = |pack: &Pack| pack.blocks.get(index as usize).copied();
        let is_equal = hash(self.pack).is_some() && hash(self.pack) == hash(other.pack);
        (left.min(end.saturating_sub(self.offset).max(1)) as usize, is_equal)
    }
}
