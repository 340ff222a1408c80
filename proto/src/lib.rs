//! The gRPC protocol of Whimbrel, `package whimbrel.v1`.
//!
//! The `.proto` files in `whimbrel/v1` are the public document: start reading at `runs.proto`. [`v1`] is generated from them.
//!
//! Messages are converted to domain types at the edge of each program, and inside there are only valid types:
//!
//! | what is converted | where |
//! | --- | --- |
//! | types that several programs share: generations, packs, tensors, hashes | [`border`] |
//! | messages of agents and workers, to events of the decision core | the coordinator, `driver/inbound.rs` |
//! | facts about runs, to statuses and events for clients | the coordinator, `events/` |

pub mod border;
mod error_text;

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

pub use error_text::with_causes;

/// The compiled `.proto` files with their comments. The coordinator serves them through gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

/// The largest gRPC message that each side accepts, in bytes: enough for a generation of thousands of workers, or for the packs
/// of a checkpoint of a hundred thousand tensors.
pub const MAX_MESSAGE: usize = 64 << 20;
