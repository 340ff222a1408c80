//! The *state* of a run: the named tensors and small values that make training resumable.
//!
//! A few ideas, a file each:
//!
//! - [`tensor`]: a tensor by name, dtype and shape, and the bytes it lives in now;
//! - [`layout`]: all tensors of a state in one canonical order, so that the state is also one array of
//!   bytes with offsets, which is what is sliced, sent, stored and hashed;
//! - [`mod@digest`]: the BLAKE3 of a state, the project's oracle: equal digests, equal bits;
//! - [`manifest`]: what makes a set of packs a checkpoint; [`blocks`]: verifying part of a pack.
//!
//! Nothing here does I/O.

pub mod blocks;
pub mod digest;
pub mod hash;
pub mod layout;
pub mod manifest;
pub mod tensor;

pub use digest::digest;
pub use hash::Hash;
pub use layout::{Layout, LayoutError, StateBytes};
pub use manifest::{Manifest, ManifestError, Pack, Piece};
pub use tensor::{Dtype, TensorMut, TensorSpec};
