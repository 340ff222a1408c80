//! The gRPC protocol of Whimbrel, `package whimbrel.v1`, and its border with the domain.
//!
//! The `.proto` files beside this crate are the public document; [`v1`] is what is generated from them. Messages become
//! domain types in [`border`], once, at the edge: what is missing or invalid is refused there with the field's name, and
//! inside the program there are only types that cannot be wrong.

pub mod border;
mod words;

/// The messages and services, generated from the `.proto` files; `tests/generated.rs` writes and checks the code.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code; its documentation is in the .proto files"
)]
pub mod v1 {
    include!("generated/whimbrel.v1.rs");
}

pub use words::with_causes;

/// The compiled `.proto` files with their comments, for the gRPC reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

/// The largest gRPC message that either side accepts, in bytes: a generation of thousands of workers or the pieces of a
/// checkpoint of a hundred thousand tensors fit with room.
pub const MAX_MESSAGE: usize = 64 << 20;
