//! The header of a safetensors file: read with suspicion, written for any reader.
//!
//! A file is the length of its header in 8 bytes, the header in JSON, and the tensors' bytes. Files to be imported come
//! from anywhere, so the header is bounded before memory is allocated for it, and must say of every byte of the data
//! which one tensor it belongs to.

use std::{cmp::Reverse, collections::BTreeMap, fmt, fs::File, io, iter, ops::Range, os::unix::fs::FileExt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use whimbrel_state::{Dtype, TensorSpec};

/// The longest header that readers of the format take, in bytes.
pub const MAX_HEADER: u64 = 100_000_000;

/// Bytes of the length before the header.
const LENGTH: u64 = 8;

/// No tensor has more dimensions; a header that says so is made to fill the memory.
const MAX_DIMENSIONS: usize = 64;

/// The key that is not a tensor's name.
pub const METADATA: &str = "__metadata__";

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Texts that came with it, under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<StoredTensor>,
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// What it is.
    pub spec: TensorSpec,
    /// The bytes of the file that hold it.
    pub place: Range<u64>,
}

/// A file that is not a safetensors file, or holds what a state cannot.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It is shorter than the length of a header.
    #[error("it is {0} bytes long, too short for a safetensors file")]
    TooShort(u64),
    /// Its header would be longer than the file, or than any header.
    #[error(
        "its header is {claimed} bytes long by its first 8 bytes, and can be {most} at most: it is no safetensors file, or cut short"
    )]
    Length {
        /// The length in the file.
        claimed: u64,
        /// The longest that it can be.
        most: u64,
    },
    /// The header is not the JSON it should be.
    #[error("its header is not that of a safetensors file")]
    Json(#[from] serde_json::Error),
    /// A state has no elements of this type.
    #[error("tensor {tensor:?} is of type {dtype:?}, which a state cannot hold; it holds {}", names())]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type, as the file names it.
        dtype: String,
    },
    /// Shape, type and length contradict each other.
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
        /// Bytes by its offsets.
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
    /// A byte belongs to two tensors, or to none.
    #[error("bytes {} to {} of its data belong to {} tensor", place.start, place.end, if *twice { "more than one" } else { "no" })]
    Cover {
        /// The bytes.
        place: Range<u64>,
        /// To two, rather than to none.
        twice: bool,
    },
}

fn names() -> String {
    Dtype::ALL.map(|dtype| format!("{dtype:?}")).join(", ")
}

impl Header {
    /// Reads the header of a file. Nothing is allocated that the file is not long enough for.
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

    /// Reads a header's JSON; `data` is the number of bytes that follow it.
    pub fn parse(text: &[u8], data: u64) -> Result<Self, HeaderError> {
        let RawHeader { metadata, tensors } = serde_json::from_slice(text)?;
        let start = LENGTH + text.len() as u64;
        // No file is longer, and sums of two such do not overflow.
        let data = data.min(i64::MAX as u64 - start);
        let mut stored = tensors
            .into_iter()
            .map(|(name, raw)| raw.checked(name, start, data))
            .collect::<Result<Vec<_>, _>>()?;
        stored.sort_by_key(|tensor| (tensor.place.start, tensor.place.end));
        let mut end = start;
        let past = start + data..start + data;
        for place in stored.iter().map(|tensor| tensor.place.clone()).chain(iter::once(past)) {
            let cover = |place: Range<u64>, twice| HeaderError::Cover {
                place: place.start - start..place.end - start,
                twice,
            };
            match place.start {
                next if next > end => return Err(cover(end..next, false)),
                next if next < end => return Err(cover(next..end, true)),
                _ => end = place.end,
            }
        }
        Ok(Self { metadata, tensors: stored })
    }
}

/// The header of a file to be written, and the place of each of its tensors.
///
/// Tensors of the largest elements come first, so that each starts where its elements align, and else they stand in the
/// order given. Names must be unlike and none of them [`METADATA`]. Of each place the index in `specs` is told.
pub(super) fn lay_out(
    metadata: &BTreeMap<String, String>,
    specs: &[TensorSpec],
) -> (Vec<u8>, Vec<(usize, Range<u64>)>) {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|&index| Reverse(specs[index].dtype.size()));
    let mut json = serde_json::Map::new();
    json.insert(METADATA.to_owned(), serde_json::json!(metadata));
    let (mut places, mut end) = (Vec::with_capacity(specs.len()), 0);
    for index in order {
        let TensorSpec { name, dtype, shape } = &specs[index];
        // The tensors of a layout have a length.
        let (start, bytes) = (end, specs[index].checked_bytes().unwrap_or(0) as u64);
        end += bytes;
        let entry = serde_json::json!({ "dtype": format!("{dtype:?}"), "shape": shape, "data_offsets": [start, end] });
        json.insert(name.clone(), entry);
        places.push((index, start..end));
    }
    let mut text = serde_json::Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(LENGTH as usize), b' ');
    let head = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
    for (_, place) in &mut places {
        *place = place.start + head.len() as u64..place.end + head.len() as u64;
    }
    (head, places)
}

/// The header as it stands in JSON.
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
                Ok(StoredTensor { spec, place: data_start + start..data_start + end })
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

            // By hand, because a derived reader would take the last of two tensors of one name, and say nothing.
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
