//! Packs: immutable objects of about 64 MiB, each a valid safetensors file, named by its BLAKE3 hash.
//!
//! [`save_slice`](crate::save_slice) cuts a slice of the state into packs here and encodes each.
//!
//! Cuts are at multiples of the pack size, counted from the start of the *state*, not of the slice: two memberships
//! that slice one state differently still share most packs. The content of a pack depends on the tensors alone. It
//! holds no run, step or time, so equal content is stored once.
//!
//! Inside a pack, tensors are ordered by element size, largest first, as safetensors writers do: each tensor is aligned
//! to its elements. A tensor that is whole in one pack keeps its name and shape. A part of a tensor is flat and is
//! named `<tensor>[<start>..<end>]`, counted in elements.

use std::{cmp::Reverse, collections::HashSet, ops::Range};

use bytes::Bytes;
use object_store::PutPayload;
use whimbrel_state::{Hash, Layout, Pack, Piece, blocks};

/// The most tensors in one pack. It keeps the header at a few MiB, which every safetensors reader accepts.
const MAX_TENSORS: usize = 1 << 16;

/// The key that safetensors reserves.
const METADATA: &str = "__metadata__";

/// A pack ready to be put. Its body refers to the staged copy: tensors are not copied again.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) pack: Pack,
    pub(crate) body: PutPayload,
}

/// The name of a pack in the run's directory.
pub(crate) fn pack_name(hash: &Hash) -> String {
    let digits = hash.to_string();
    format!("packs/{}/{digits}.safetensors", &digits[..2])
}

/// The hash in the name of a pack; `None` if `name` is not the name of a pack.
pub(crate) fn pack_hash(name: &str) -> Option<Hash> {
    let digits = name.strip_prefix("packs/")?.split_once('/')?.1.strip_suffix(".safetensors")?;
    digits.parse().ok().filter(|hash| pack_name(hash) == name)
}

/// Cuts a byte range of the state into the ranges of its packs. No cut splits an element if `range` splits none.
pub(crate) fn cut(layout: &Layout, range: Range<usize>, pack_bytes: usize) -> Vec<Range<usize>> {
    let size = pack_bytes.max(1);
    let mut cuts = vec![range.start];
    let mut grid = (range.start / size).saturating_add(1).saturating_mul(size);
    while grid < range.end {
        cuts.push(element_start(layout, grid).max(range.start));
        grid = grid.saturating_add(size);
    }
    cuts.push(range.end);
    let too_many = |cut: Range<usize>| {
        let starts = layout.pieces(cut).enumerate().skip(1).filter(|(count, _)| count % MAX_TENSORS == 0);
        starts.map(|(_, (index, piece))| layout.range_of(index).start + piece.start).collect::<Vec<_>>()
    };
    let more: Vec<usize> = cuts.windows(2).flat_map(|ends| too_many(ends[0]..ends[1])).collect();
    cuts.extend(more);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|ends| ends[0]..ends[1]).collect()
}

/// The start of the element that byte `at` of the state lies in.
pub(crate) fn element_start(layout: &Layout, at: usize) -> usize {
    match layout.pieces(at..at.saturating_add(1)).next() {
        Some((index, piece)) => at - piece.start % layout.tensors()[index].dtype.size(),
        None => at,
    }
}

/// Builds the pack of `range`, whose bytes are `bytes`. It hashes all of them: call it on a blocking thread.
pub(crate) fn encode(layout: &Layout, range: Range<usize>, bytes: &Bytes) -> Encoded {
    let parts: Vec<(usize, Range<usize>)> = layout.pieces(range.clone()).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&part| Reverse(layout.tensors()[parts[part].0].dtype.size()));

    let mut header = format!("{{\"{METADATA}\":{{\"format\":\"whimbrel-pack-1\"}}");
    let mut names = HashSet::from([METADATA.to_owned()]);
    let mut offsets = vec![0; parts.len()];
    let mut data: Vec<Range<usize>> = Vec::new();
    let mut end = 0;
    for part in order {
        let (index, piece) = parts[part].clone();
        let (offset, past) = (end, end + piece.len());
        describe(&mut header, &mut names, layout, index, piece.clone(), offset..past);
        offsets[part] = offset;
        let start = layout.range_of(index).start + piece.start - range.start;
        match data.last_mut() {
            Some(last) if last.end == start => last.end += piece.len(),
            _ => data.push(start..start + piece.len()),
        }
        end = past;
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }

    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(header.as_bytes());
    let data_start = head.len();
    let mut body = vec![Bytes::from(head)];
    body.extend(data.into_iter().map(|slice| bytes.slice(slice)));
    let length = (data_start + end) as u64;
    let (hash, blocks) = blocks::hash(body.iter().map(Bytes::as_ref), length);

    let mut pieces: Vec<Piece> = Vec::new();
    for ((index, piece), offset) in parts.into_iter().zip(offsets) {
        let offset = (data_start + offset) as u64;
        let (start, length) = ((layout.range_of(index).start + piece.start) as u64, piece.len() as u64);
        match pieces.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => pieces.push(Piece { offset, start, length }),
        }
    }
    let pack = Pack { hash, length, pieces, blocks };
    Encoded { pack, body: body.into_iter().collect() }
}

/// Adds a tensor, or a part of one, to a safetensors header. `piece` is in bytes of the tensor, `offsets` in bytes of
/// the pack's data.
fn describe(
    header: &mut String,
    names: &mut HashSet<String>,
    layout: &Layout,
    index: usize,
    piece: Range<usize>,
    offsets: Range<usize>,
) {
    let tensor = &layout.tensors()[index];
    let size = tensor.dtype.size();
    let whole = piece.len() == layout.range_of(index).len();
    let (mut name, shape) = if whole {
        (tensor.name.clone(), tensor.shape.clone())
    } else {
        let (start, end) = (piece.start / size, piece.end / size);
        (format!("{}[{start}..{end}]", tensor.name), vec![end - start])
    };
    // A tensor may have the name of a part of another tensor, or of the reserved key: a suffix keeps the names
    // distinct.
    while !names.insert(name.clone()) {
        name.push('\'');
    }
    let (name, dtype) = (serde_json::Value::String(name), tensor.dtype);
    let (start, end) = (offsets.start, offsets.end);
    header.push_str(&format!(
        ",{name}:{{\"dtype\":\"{dtype:?}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
    ));
}
