//! The header of a safetensors file: parsed strictly, and written so that any reader accepts it.
//!
//! A file is the length of its header in 8 bytes, the header in JSON, and the tensors' bytes. Imported files may be
//! hostile: the length is checked before memory is allocated for the header, and every byte of the data must belong to
//! exactly one tensor.

use std::{cmp::Reverse, collections::BTreeMap, fmt, fs::File, io, iter, ops::Range, os::unix::fs::FileExt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use whimbrel_state::{Dtype, TensorSpec};

/// The longest header that readers of the format accept, in bytes.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// The length of the length field before the header, in bytes.
const LENGTH: u64 = 8;

/// The most dimensions of a tensor. A header with more is an attempt to fill the memory.
const MAX_DIMENSIONS: usize = 64;

/// The key in a header that is not the name of a tensor.
pub(super) const METADATA: &str = "__metadata__";

/// What a safetensors file contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The texts under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<StoredTensor>,
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name, type and shape.
    pub spec: TensorSpec,
    /// Where its data is, in bytes of the file.
    pub range: Range<u64>,
}

/// Why a file cannot be read as tensors of a state: it is not a safetensors file, or a state cannot hold its tensors.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It is shorter than the length field of the header.
    #[error("it is {0} bytes long, too short for a safetensors file")]
    TooShort(u64),
    /// Its header is longer than the file, or than any header may be.
    #[error(
        "its header is {claimed} bytes long by its first 8 bytes, and can be {most} at most: it is not a safetensors file, or it was cut short"
    )]
    Length {
        /// The length by the length field.
        claimed: u64,
        /// The longest that it can be, in bytes.
        most: u64,
    },
    /// The header is not the JSON of a safetensors header.
    #[error("its header is not that of a safetensors file")]
    Json(#[from] serde_json::Error),
    /// A state cannot hold elements of this type.
    #[error("tensor {tensor:?} is of type {dtype:?}, which a state cannot hold; it holds {}", names())]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type, as the file spells it.
        dtype: String,
    },
    /// Its shape and type do not give its length.
    #[error(
        "tensor {tensor:?} of {dtype:?}{shape:?} does not fit the {found} bytes that the header gives it"
    )]
    Size {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Its length by its offsets, in bytes.
        found: u64,
    },
    /// A tensor ends before it starts, or past the end of the file.
    #[error(
        "tensor {tensor:?} is at bytes {start} to {end} of the data, of which there are {data}; the file may be cut short"
    )]
    Offsets {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// Bytes of data in the file.
        data: u64,
    },
    /// A byte of the data belongs to two tensors, or to none.
    #[error("bytes {} to {} of its data belong to {} tensor", range.start, range.end, if *twice { "more than one" } else { "no" })]
    Cover {
        /// The bytes, counted from the start of the data.
        range: Range<u64>,
        /// Whether they belong to two tensors.
        twice: bool,
    },
}

fn names() -> String {
    Dtype::ALL.map(|dtype| format!("{dtype:?}")).join(", ")
}

impl Header {
    /// Reads the header of a file. It allocates no more memory than the file is long.
    pub fn read(file: &File) -> Result<Self, HeaderError> {
        let length = file.metadata()?.len();
        let mut claimed = [0; LENGTH as usize];
        let left = length.checked_sub(LENGTH).ok_or(HeaderError::TooShort(length))?;
        file.read_exact_at(&mut claimed, 0)?;
        let (claimed, most) = (u64::from_le_bytes(claimed), left.min(MAX_HEADER));
        if claimed > most {
            return Err(HeaderError::Length { claimed, most });
        }
        let mut text = vec![0; claimed as usize];
        file.read_exact_at(&mut text, LENGTH)?;
        Self::parse(&text, left - claimed)
    }

    /// Parses the JSON of a header. `data` is the number of bytes that follow the header.
    pub fn parse(text: &[u8], data: u64) -> Result<Self, HeaderError> {
        let RawHeader { metadata, tensors } = serde_json::from_slice(text)?;
        let start = LENGTH + text.len() as u64;
        // No file is longer. The bound keeps sums of two lengths from overflowing.
        let data = data.min(i64::MAX as u64 - start);
        let mut stored = tensors
            .into_iter()
            .map(|(name, raw)| raw.checked(name, start, data))
            .collect::<Result<Vec<_>, _>>()?;
        stored.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
        let mut end = start;
        let end_of_data = start + data..start + data;
        for range in stored.iter().map(|tensor| tensor.range.clone()).chain(iter::once(end_of_data)) {
            let cover = |range: Range<u64>, twice| HeaderError::Cover {
                range: range.start - start..range.end - start,
                twice,
            };
            match range.start {
                next if next > end => return Err(cover(end..next, false)),
                next if next < end => return Err(cover(next..end, true)),
                _ => end = range.end,
            }
        }
        Ok(Self { metadata, tensors: stored })
    }
}

/// Lays out a file to be written. Returns its length field and header, and for each tensor, in the file's order, its
/// index in `specs` and where its data goes, in bytes of the file.
///
/// Tensors are ordered by element size, largest first, so that each is aligned; those of equal size keep the order of
/// `specs`. The names must be distinct and none may be [`METADATA`].
pub(super) fn lay_out(
    metadata: &BTreeMap<String, String>,
    specs: &[TensorSpec],
) -> (Vec<u8>, Vec<(usize, Range<u64>)>) {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|&index| Reverse(specs[index].dtype.size()));
    let mut json = serde_json::Map::new();
    json.insert(METADATA.to_owned(), serde_json::json!(metadata));
    let (mut ranges, mut end) = (Vec::with_capacity(specs.len()), 0);
    for index in order {
        let TensorSpec { name, dtype, shape } = &specs[index];
        // The specs are those of a layout, whose tensors have a length.
        let (start, bytes) = (end, specs[index].checked_bytes().unwrap_or(0) as u64);
        end += bytes;
        let entry = serde_json::json!({ "dtype": format!("{dtype:?}"), "shape": shape, "data_offsets": [start, end] });
        json.insert(name.clone(), entry);
        ranges.push((index, start..end));
    }
    let mut text = serde_json::Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(LENGTH as usize), b' ');
    let head = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
    for (_, range) in &mut ranges {
        *range = range.start + head.len() as u64..range.end + head.len() as u64;
    }
    (head, ranges)
}

/// The header as it is in the JSON.
#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl RawTensor {
    fn checked(self, tensor: String, data_start: u64, data: u64) -> Result<StoredTensor, HeaderError> {
        let (start, end) = self.data_offsets;
        if start > end || end > data {
            return Err(HeaderError::Offsets { tensor, start, end, data });
        }
        let Some(dtype) = Dtype::ALL.into_iter().find(|dtype| format!("{dtype:?}") == self.dtype) else {
            return Err(HeaderError::Dtype { tensor, dtype: self.dtype });
        };
        let spec = TensorSpec { name: tensor, dtype, shape: self.shape.0 };
        match spec.checked_bytes() {
            Some(bytes) if bytes as u64 == end - start => {
                Ok(StoredTensor { spec, range: data_start + start..data_start + end })
            }
            _ => {
                let TensorSpec { name: tensor, dtype, shape } = spec;
                Err(HeaderError::Size { tensor, dtype, shape, found: end - start })
            }
        }
    }
}

/// A shape of at most [`MAX_DIMENSIONS`].
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;

        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "the sizes of at most {MAX_DIMENSIONS} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = list.next_element()? {
                    if sizes.len() == MAX_DIMENSIONS {
                        return Err(A::Error::invalid_length(sizes.len() + 1, &self));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }

        deserializer.deserialize_seq(Sizes)
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a key for each tensor")
            }

            // By hand: a derived implementation accepts two tensors of one name and keeps the last.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        header.metadata = map.next_value()?;
                    } else if header.tensors.insert(name.clone(), map.next_value()?).is_some() {
                        return Err(A::Error::custom(format_args!("{name:?} is there twice")));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
