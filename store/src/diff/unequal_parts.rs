//! Which parts of two checkpoints have to be read to tell them apart: what hashes vouch for is left out.

use std::ops::Range;

use whimbrel_state::{Manifest, Pack, blocks::BLOCK};

/// A part of both states that may differ: as many bytes in each, in the same tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Bytes of the first state.
    pub(super) a: Range<usize>,
    /// Bytes of the second state.
    pub(super) b: Range<usize>,
}

/// The parts of the tensors `shared`, given by their index in either layout, that no hash says are the same.
pub(super) fn parts(a: &Manifest, b: &Manifest, shared: &[(usize, usize)]) -> Vec<Part> {
    let (in_a, in_b) = (Packed::new(a), Packed::new(b));
    let mut parts: Vec<Part> = Vec::new();
    for &(of_a, of_b) in shared {
        let (a_range, b_range) = (a.layout.range_of(of_a), b.layout.range_of(of_b));
        let size = a.layout.tensors()[of_a].dtype.size();
        let mut at = 0;
        while at < a_range.len() {
            let (a_at, b_at) = (a_range.start + at, b_range.start + at);
            let (Some(here), Some(there)) = (in_a.place(a_at), in_b.place(b_at)) else { break };
            let (length, same) = here.like(&there);
            let end = at + length.min(a_range.len() - at);
            if !same {
                // Whole elements, wherever a block of a pack ends.
                let (start, end) = (at - at % size, end.next_multiple_of(size).min(a_range.len()));
                let part = Part {
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

/// Adds a part, to the last one if it goes on in both states.
fn push(parts: &mut Vec<Part>, mut part: Part) {
    if let Some(last) = parts.last_mut() {
        let overlap = last.a.end.saturating_sub(part.a.start);
        if overlap > 0 && last.b.end.saturating_sub(part.b.start) == overlap {
            part = Part { a: part.a.start + overlap..part.a.end, b: part.b.start + overlap..part.b.end };
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
struct Packed<'a> {
    /// The byte of the state, the pack, and the byte of the pack: in order.
    pieces: Vec<(u64, &'a Pack, u64)>,
    end: u64,
}

/// A byte in a pack, and how many after it follow in that pack and in the state.
struct Location<'a> {
    pack: &'a Pack,
    offset: u64,
    left: u64,
}

impl<'a> Packed<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let pieces = manifest.packs.iter().flat_map(|pack| {
            let filled = pack.pieces.iter().filter(|piece| piece.length > 0);
            filled.map(move |piece| (piece.start, pack, piece.offset))
        });
        Self { pieces: pieces.collect(), end: manifest.layout.bytes() as u64 }
    }

    fn place(&self, at: usize) -> Option<Location<'a>> {
        let at = at as u64;
        let next = self.pieces.partition_point(|(start, ..)| *start <= at);
        let (start, pack, offset) = *self.pieces.get(next.checked_sub(1)?)?;
        let end = self.pieces.get(next).map_or(self.end, |(start, ..)| *start);
        Some(Location { pack, offset: offset + at - start, left: end.checked_sub(at)? })
    }
}

impl Location<'_> {
    /// How many of the next bytes are judged alike, and whether hashes say that they are the same.
    fn like(&self, other: &Self) -> (usize, bool) {
        let left = self.left.min(other.left).max(1);
        if self.offset != other.offset {
            return (left as usize, false);
        }
        if self.pack.hash == other.pack.hash {
            return (left as usize, true);
        }
        // Blocks lie at fixed bytes of a pack, and equal hashes of theirs mean equal bytes at equal places.
        let index = self.offset / BLOCK;
        let end = self.pack.block(index).end.min(other.pack.block(index).end);
        let hash = |pack: &Pack| pack.blocks.get(index as usize).copied();
        let same = hash(self.pack).is_some() && hash(self.pack) == hash(other.pack);
        (left.min(end.saturating_sub(self.offset).max(1)) as usize, same)
    }
}
