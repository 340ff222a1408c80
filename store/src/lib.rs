//! Runs in object stores: a run is a directory, and everything that matters about it is in there.
//!
//! ```text
//! <store>/<run-id>/
//!   log/00000000000000000000.json        the run log: numbered entries, each created once and never changed
//!   manifests/<step>-<blake3>.json       what makes a set of packs a checkpoint
//!   packs/<hh>/<blake3>.safetensors      the tensors, about 64 MiB each, named by their hash
//!   output/<worker>/<sequence>.txt       what the workers printed
//! ```
//!
//! # The protocol, in four sentences
//! The log is the truth, and it needs nothing of a store but puts that refuse to overwrite. A coordinator starts a term
//! by creating the next entry with a higher *epoch*, and every append of a lower epoch finds that entry in its way:
//! it is fenced. A checkpoint exists once an entry names its manifest, and not before, so a save that dies half-way
//! leaves only packs that nobody refers to. Every byte read back is compared with a BLAKE3 hash before it is used.
//!
//! # Where to start reading
//! - [`store`]: a place for runs; [`place`]: its URI ([`uri`]) and the client that reaches it; [`run_dir`]: one run's directory in
//!   it; [`probe`]: whether a store will do; [`refusal`]: what a cloud means when it says no.
//! - [`folder`]: the requests: each with a deadline, retried where that is safe, named in its error; at a pace that the
//!   store keeps up with, and slower when it says so ([`slow_down`]).
//! - [`entry`], [`history`], `term`: an entry of the log, the whole of it, and the right to append to it.
//! - [`pack`], [`save`]: cutting a slice of the state into packs and putting them.
//! - [`checkpoint`]: the manifest and the commit. [`fetch`], [`sources`], [`mod@restore`], [`mod@read_state`],
//!   [`mod@verify`]: reading it back, from whichever store has it.
//! - [`mod@quarantine`], [`mod@collect`]: what happens to checkpoints that are damaged, or no longer wanted.
//! - [`mod@diff`]: how two checkpoints differ.
//! - [`interop`]: checkpoints as models' folders of safetensors, there and back.
//! - [`output`]: the workers' printed lines; [`shell`]: URIs in commands that are printed to be pasted.

pub mod checkpoint;
pub mod copy;
pub mod diff;
pub mod gc;
pub mod interop;
pub mod location;
pub mod log;
pub mod object;

pub use checkpoint::{
    BadPack, CommitError, Committed, Limits, QuarantineError, ReadManifestError, RestoreError, RestoreReport,
    SaveError, Sources, StateReader, Verified, VerifyError, commit, quarantine, read_state, restore,
    restore_some, save_slice, verify,
};
pub use copy::{
    Amount, CheckpointSelection, Copied, CopyError, CopyPlan, CopyProgress, Lag, PlannedCheckpoint,
    ReplicateError, Replicator, SkipReason, SkippedCheckpoint, Unreplicated, is_ahead, newer, plan_copy,
    recover_from,
};
pub use gc::collect::{CollectError, Collected, UnreadableManifest, collect, collectable};
pub use gc::retention::{KeepEvery, Retention};
pub use location::cost::{Price, PriceError, Prices, egress_price};
pub use location::probe::{Need, ProbeError};
pub use location::refusal::Refusal;
pub use location::{Environment, OpenError};
pub use location::{shell, store::Store, uri};
pub use log::entry::{Ended, Entry, EntryError, Mode, Origin, Outcome, Record, ReplicaOf, Stopped};
pub use log::lineage::{Relation, ReplicaLogError, relation};
pub use log::output::OutputChunk;
pub use log::run_dir::{RunDir, open_run, open_run_in};
pub use log::run_log::{CheckpointInfo, LogError, RunLog};
pub use log::term::{AppendError, CreateError, Term, TermError};
pub use object::folder::StoreError;
pub use object::retry::RetryPolicy;
pub use object::slow_down::SlowDown;
