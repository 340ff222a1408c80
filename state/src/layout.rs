//! The tensors of a state in canonical order, as one array of bytes.
//!
//! The order is by name, so it does not depend on the order in which a program lists its tensors. The tensors follow one
//! another without padding. A *byte range of the state* therefore names a part of it for every purpose: a slice of a
//! checkpoint, a piece of a pack, a frame between two workers.

use std::{collections::HashSet, ops::Range};

use serde::{Deserialize, Serialize};

use crate::tensor::{Memory, TensorMut, TensorSpec};

/// The tensors of a state, in canonical order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TensorSpec>", into = "Vec<TensorSpec>")]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    /// `starts[i]` is the byte at which tensor `i` starts; one more for the end.
    starts: Vec<usize>,
}

/// A state that cannot be laid out, or memory that does not fit its layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Two tensors have the same name.
    #[error("two tensors are named {0:?}; give each its own name")]
    DuplicateName(String),
    /// A shape whose byte count overflows.
    #[error("tensor {name:?} of shape {shape:?} is too large to address")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The memory handed in is not as long as the shape says.
    #[error("tensor {name:?} needs {expected} bytes by its shape and dtype, but {found} were handed in")]
    WrongLength {
        /// The tensor.
        name: String,
        /// Bytes by shape and dtype.
        expected: usize,
        /// Bytes handed in.
        found: usize,
    },
    /// Two states that should have the same layout do not.
    #[error("the states differ: {0}")]
    Differs(String),
}

impl Layout {
    /// Lays out tensors, sorting them by name.
    pub fn new(mut tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        let mut names = HashSet::new();
        for tensor in &tensors {
            if !names.insert(tensor.name.as_str()) {
                return Err(LayoutError::DuplicateName(tensor.name.clone()));
            }
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut starts = Vec::with_capacity(tensors.len() + 1);
        let mut end = 0_usize;
        starts.push(end);
        for tensor in &tensors {
            let too_large =
                || LayoutError::TooLarge { name: tensor.name.clone(), shape: tensor.shape.clone() };
            end = tensor.checked_bytes().and_then(|bytes| end.checked_add(bytes)).ok_or_else(too_large)?;
            starts.push(end);
        }
        Ok(Self { tensors, starts })
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Bytes of the whole state.
    pub fn bytes(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The bytes of the state that tensor `index` occupies.
    pub fn range_of(&self, index: usize) -> Range<usize> {
        self.starts[index]..self.starts[index + 1]
    }

    /// The tensors that a byte range of the state touches: the index of each, and the bytes of it, counted from the
    /// tensor's own start.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let first = self.starts.partition_point(|&start| start <= range.start).saturating_sub(1);
        (first..self.tensors.len())
            .take_while(move |&index| self.starts[index] < range.end)
            .map(move |index| {
                let whole = self.range_of(index);
                let start = range.start.max(whole.start) - whole.start;
                let end = range.end.min(whole.end).saturating_sub(whole.start);
                (index, start..end)
            })
            .filter(|(_, piece)| !piece.is_empty())
    }

    /// Cuts the state into `parts` slices of nearly equal size, none of which splits an element, and returns the byte range
    /// of slice `part`. Together the slices cover the state exactly once.
    pub fn slice(&self, part: usize, parts: usize) -> Range<usize> {
        self.cut(part, parts)..self.cut(part + 1, parts)
    }

    fn cut(&self, part: usize, parts: usize) -> usize {
        if part >= parts {
            return self.bytes();
        }
        let ideal = (self.bytes() as u128 * part as u128 / parts.max(1) as u128) as usize;
        let index = self.starts.partition_point(|&start| start <= ideal).saturating_sub(1);
        match self.tensors.get(index) {
            // Round down to the start of the element that contains the ideal cut.
            Some(tensor) => ideal - (ideal - self.starts[index]) % tensor.dtype.size(),
            None => ideal,
        }
    }

    /// Checks that `other` equals this layout; the error says how it differs.
    pub fn same_as(&self, other: &Self) -> Result<(), LayoutError> {
        for (mine, theirs) in self.tensors.iter().zip(&other.tensors) {
            if mine != theirs {
                return Err(LayoutError::Differs(format!(
                    "{:?} {:?}{:?} here, {:?} {:?}{:?} there",
                    mine.name, mine.dtype, mine.shape, theirs.name, theirs.dtype, theirs.shape
                )));
            }
        }
        if self.tensors.len() != other.tensors.len() {
            let (here, there) = (self.tensors.len(), other.tensors.len());
            return Err(LayoutError::Differs(format!("{here} tensors here, {there} there")));
        }
        Ok(())
    }
}

impl TryFrom<Vec<TensorSpec>> for Layout {
    type Error = LayoutError;

    fn try_from(tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        Self::new(tensors)
    }
}

impl From<Layout> for Vec<TensorSpec> {
    fn from(layout: Layout) -> Self {
        layout.tensors
    }
}

/// A state in memory, as the one array of bytes that its [`Layout`] describes.
#[derive(Debug)]
pub struct StateBytes<'a> {
    layout: Layout,
    memory: Vec<&'a mut [u8]>,
}

impl<'a> StateBytes<'a> {
    /// Lays out `tensors` and checks that the memory of each is as long as its shape says.
    pub fn new(mut tensors: Vec<TensorMut<'a>>) -> Result<Self, LayoutError> {
        tensors.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        let layout = Layout::new(tensors.iter().map(|tensor| tensor.spec.clone()).collect())?;
        let mut memory = Vec::with_capacity(tensors.len());
        for (index, tensor) in tensors.into_iter().enumerate() {
            let Memory::Host(bytes) = tensor.memory;
            let expected = layout.range_of(index).len();
            if bytes.len() != expected {
                return Err(LayoutError::WrongLength {
                    name: tensor.spec.name,
                    expected,
                    found: bytes.len(),
                });
            }
            memory.push(bytes);
        }
        Ok(Self { layout, memory })
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory of tensor `index`.
    pub fn tensor(&self, index: usize) -> &[u8] {
        self.memory[index]
    }

    /// The parts of memory that hold a byte range of the state, in order.
    pub fn read(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        self.layout.pieces(range).map(|(index, piece)| &self.memory[index][piece])
    }

    /// Copies `bytes` into the state from byte `start` on. Panics if they reach past the end of the state, as indexing does.
    pub fn write(&mut self, start: usize, mut bytes: &[u8]) {
        for (index, piece) in self.layout.pieces(start..start + bytes.len()) {
            let (now, later) = bytes.split_at(piece.len());
            self.memory[index][piece].copy_from_slice(now);
            bytes = later;
        }
        assert!(bytes.is_empty(), "{} bytes past the end of the state", bytes.len());
    }

    /// The parts of memory that hold a byte range of the state, in order, for writing.
    pub fn write_slices(&mut self, range: Range<usize>) -> Vec<&mut [u8]> {
        let mut pieces = self.layout.pieces(range).peekable();
        let mut slices = Vec::new();
        for (index, memory) in self.memory.iter_mut().enumerate() {
            if let Some((_, piece)) = pieces.next_if(|(at, _)| *at == index) {
                slices.push(&mut memory[piece]);
            }
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn layout() -> Layout {
        let bytes = |name: &str, shape: Vec<usize>| TensorSpec { name: name.into(), dtype: Dtype::U8, shape };
        Layout::new(vec![
            TensorSpec::f32("b", [3, 5]),
            bytes("a", vec![7]),
            bytes("empty", vec![0, 4]),
            TensorSpec::f32("c", []),
        ])
        .unwrap()
    }

    #[test]
    fn slices_cover_the_state_once_and_split_no_element() {
        let layout = layout();
        for parts in 1..90 {
            let mut end = 0;
            for part in 0..parts {
                let slice = layout.slice(part, parts);
                assert_eq!(slice.start, end);
                end = slice.end;
                for (index, piece) in layout.pieces(slice) {
                    let size = layout.tensors()[index].dtype.size();
                    assert_eq!((piece.start % size, piece.end % size), (0, 0), "{parts} parts");
                }
            }
            assert_eq!(end, layout.bytes());
        }
    }

    #[test]
    fn bytes_written_are_read_back_across_tensors() {
        let (mut a, mut b) = ([0_f32; 4], [0_i64; 2]);
        let mut state =
            StateBytes::new(vec![TensorMut::i64("b", [2], &mut b), TensorMut::f32("a", [2, 2], &mut a)])
                .unwrap();
        let bytes: Vec<u8> = (0..32).collect();
        state.write(3, &bytes[3..29]);
        let read: Vec<u8> = state.read(3..29).flatten().copied().collect();
        assert_eq!(read, bytes[3..29]);
        let slices = state.write_slices(10..20);
        assert_eq!(slices.iter().map(|slice| slice.len()).collect::<Vec<_>>(), [6, 4]);
    }

    #[test]
    fn mistakes_are_named() {
        let twice = vec![TensorSpec::f32("w", [1]), TensorSpec::f32("w", [2])];
        assert_eq!(Layout::new(twice), Err(LayoutError::DuplicateName("w".into())));
        let huge = vec![TensorSpec::f32("w", [usize::MAX, 2])];
        assert!(matches!(Layout::new(huge), Err(LayoutError::TooLarge { .. })));
        let mut short = [0_f32; 3];
        let error = StateBytes::new(vec![TensorMut::f32("w", [4], &mut short)]).unwrap_err();
        assert_eq!(error, LayoutError::WrongLength { name: "w".into(), expected: 16, found: 12 });
    }
}
