//! A tensor by name, dtype and shape, and the memory that holds it.

use serde::{Deserialize, Serialize};

/// The element type of a tensor. The names are those of the safetensors format and are stored as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit IEEE float.
    F32,
    /// 64-bit IEEE float.
    F64,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    BF16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// Unsigned byte.
    U8,
    /// A truth value in a byte.
    BOOL,
    /// Signed byte.
    I8,
    /// 8-bit float of 4 exponent and 3 mantissa bits, without infinities.
    #[expect(non_camel_case_types, reason = "the format's name")]
    F8_E4M3,
    /// 8-bit float of 5 exponent and 2 mantissa bits.
    #[expect(non_camel_case_types, reason = "the format's name")]
    F8_E5M2,
    /// 16-bit signed integer.
    I16,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
}

impl Dtype {
    /// All element types.
    pub const ALL: [Self; 15] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8_E4M3,
        Self::F8_E5M2,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::BOOL,
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::U8 | Self::I8 | Self::BOOL | Self::F8_E4M3 | Self::F8_E5M2 => 1,
        }
    }
}

/// A tensor without its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Unique within its state, e.g. `blocks.0.attn.qkv.weight` or `adam.m.wte`.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the dimensions, outermost first; empty for a scalar. Elements are in row-major order.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of `f32`.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.into() }
    }

    /// The number of elements; `None` when it does not fit a `usize`.
    pub fn checked_elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
    }

    /// The number of bytes; `None` when it does not fit a `usize`.
    pub fn checked_bytes(&self) -> Option<usize> {
        self.checked_elements()?.checked_mul(self.dtype.size())
    }
}

/// The memory that holds the elements of a tensor.
///
/// Today that is host memory. A device's memory would be another variant, which every reader would have to handle.
#[derive(Debug)]
#[non_exhaustive]
pub enum Memory<'a> {
    /// Host memory, little-endian elements in row-major order.
    Host(&'a mut [u8]),
}

/// A tensor of the state together with the memory that holds it.
#[derive(Debug)]
pub struct TensorMut<'a> {
    /// Name, dtype and shape.
    pub spec: TensorSpec,
    /// Its elements.
    pub memory: Memory<'a>,
}

impl<'a> TensorMut<'a> {
    /// A tensor of `f32` in host memory.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a mut [f32]) -> Self {
        Self { spec: TensorSpec::f32(name, shape), memory: Memory::Host(bytemuck::cast_slice_mut(values)) }
    }

    /// A tensor of `i64` in host memory.
    pub fn i64(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a mut [i64]) -> Self {
        let spec = TensorSpec { name: name.into(), dtype: Dtype::I64, shape: shape.into() };
        Self { spec, memory: Memory::Host(bytemuck::cast_slice_mut(values)) }
    }
}
