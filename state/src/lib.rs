//! The *state* of a run: the named tensors and small values that make training resumable.
//!
//! | file | content |
//! | --- | --- |
//! | [`tensor`] | a tensor by name, dtype and shape, and the memory that holds it |
//! | [`layout`] | the tensors of a state in canonical order: one array of bytes, which is sliced, sent, stored and hashed |
//! | [`mod@digest`] | the BLAKE3 of a state, the project's oracle: equal digests mean equal bits |
//! | [`manifest`] | what makes a set of packs a checkpoint |
//! | [`blocks`] | the verification of part of a pack |
//! | [`mod@hash`] | a BLAKE3 hash as it is written in names and manifests |
//!
//! Nothing here does I/O.

pub mod blocks;
pub mod digest;
pub mod fingerprint;
pub mod hash;
pub mod layout;
pub mod manifest;
pub mod tensor;

pub use digest::digest;
pub use fingerprint::Fingerprint;
pub use hash::Hash;
pub use layout::{Layout, LayoutError, StateBytes};
pub use manifest::{Manifest, ManifestError, Pack, Piece};
pub use tensor::{Dtype, Memory, TensorMut, TensorSpec};
