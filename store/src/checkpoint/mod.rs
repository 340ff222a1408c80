//! Checkpoints: saved as packs, committed by a manifest, read back and verified.
//!
//! Writing, in the order of its life cycle:
//! - `save`: a worker cuts its slice of the state into packs and puts those that the store lacks. `pack` encodes a
//!   pack, `put_pack` puts it.
//! - `commit`: the coordinator puts the manifest and appends it to the run log. Only then does the
//!   checkpoint exist. `manifest` names, reads and writes manifests.
//!
//! Reading, from the bottom up. Every byte is verified in the first file and nowhere else:
//! - `block_reader`: verified blocks of a pack from one store; `extent`: which blocks one request reads;
//!   `bad_pack`: what can be wrong with a pack.
//! - `source_reader`: blocks from the first of the `sources` that has them; `heal`: putting back what the run's
//!   own directory lacks.
//! - `restore`: into memory, in any order.
//! - `read_ahead`: in the state's order, in bounded memory. `state_reader` hands out the state's bytes,
//!   `state_ranges` several ranges of it, and `verify` reads everything and keeps nothing.
//!   `state_digest`: the digest of a state that is read or imported.
//! - `quarantine`: what happens to a damaged checkpoint.

mod bad_pack;
mod block_reader;
mod commit;
mod extent;
mod heal;
mod manifest;
mod pack;
mod put_pack;
mod quarantine;
mod read_ahead;
mod restore;
mod save;
mod source_reader;
mod sources;
mod state_digest;
mod state_ranges;
mod state_reader;
mod verify;

pub use bad_pack::BadPack;
pub use commit::{CommitError, Committed, commit};
pub use manifest::ReadManifestError;
pub use quarantine::{QuarantineError, quarantine};
pub use restore::{RestoreError, RestoreReport, restore, restore_some};
pub use save::{SaveError, save_slice};
pub use sources::Sources;
pub use state_reader::{StateReader, read_state};
pub use verify::{Verified, Verifier, VerifyError, verify};

pub(crate) use bad_pack::ReadPackError;
pub(crate) use block_reader::read_pack;
pub(crate) use commit::{append_checkpoint, lacking};
pub(crate) use pack::{cut, pack_hash, pack_name};
pub(crate) use put_pack::{put_pack, stored_length};
pub(crate) use state_digest::{DigestInput, digest_received};
pub(crate) use state_ranges::{StatePart, join_ranges, read_ranges};
