//! A tensor by name, dtype and shape, and the bytes it lives in now.

use serde::{Deserialize, Serialize};

/// The element type of a tensor. The names are those of the safetensors format.
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
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
        }
    }
}

/// What a tensor is, without its values.
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

/// Where the elements of a tensor are.
///
/// Today that is host memory; a device's memory becomes another variant, and what reads tensors already has to say
/// what it does with each.
#[derive(Debug)]
#[non_exhaustive]
pub enum Place<'a> {
    /// Host memory, little-endian elements in row-major order.
    Host(&'a mut [u8]),
}

/// A tensor of the state together with the memory that holds it.
#[derive(Debug)]
pub struct TensorMut<'a> {
    /// What it is.
    pub spec: TensorSpec,
    /// Where it is.
    pub place: Place<'a>,
}

impl<'a> TensorMut<'a> {
    /// A tensor of `f32` in host memory.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a mut [f32]) -> Self {
        Self { spec: TensorSpec::f32(name, shape), place: Place::Host(bytemuck::cast_slice_mut(values)) }
    }

    /// A tensor of `i64` in host memory.
    pub fn i64(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a mut [i64]) -> Self {
        let spec = TensorSpec { name: name.into(), dtype: Dtype::I64, shape: shape.into() };
        Self { spec, place: Place::Host(bytemuck::cast_slice_mut(values)) }
    }
}
