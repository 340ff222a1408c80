//! Runs in object stores. A run is a directory; the directory holds everything that matters about the run.
//!
//! ```text
//! <store>/<run-id>/
//!   log/00000000000000000000.json        the run log: numbered entries, each created once and never changed
//!   manifests/<step>-<blake3>.json       what makes a set of packs a checkpoint
//!   packs/<hh>/<blake3>.safetensors      the tensors, about 64 MiB each, named by their hash
//!   output/epoch-<epoch>/<sequence>.txt  what the workers printed, one sequence for each term
//! ```
//!
//! # The protocol in short
//! - The log is the truth. It needs only create-only puts of a store.
//! - A coordinator starts a term by creating the next entry with a higher *epoch*. An append of a lower epoch finds that
//!   entry under its number, and so is fenced.
//! - A checkpoint exists once an entry names its manifest. A save that dies half-way leaves only packs that no manifest
//!   names.
//! - Every byte that is read back is compared with a BLAKE3 hash before it is used.
//!
//! # Where to start reading
//! Each folder's `mod.rs` says what is in it. A folder depends only on those above it in this table.
//!
//! | folder | is | start with |
//! | --- | --- | --- |
//! | [`uri`], [`shell`] | text: joining URIs, quoting commands | |
//! | `object/` | requests to an object store: deadlines, retries, flow control | `Folder` |
//! | `location/` | stores: their URIs, one client for each provider, what refusals mean | [`Store`] |
//! | `log/` | one run's directory and its log: terms, fencing, replicas | [`RunDir`], [`RunLog`], [`Term`] |
//! | `checkpoint/` | packs, saving, committing, restoring, verifying | [`save_slice`], [`commit`], [`restore`] |
//! | `gc/` | retention, and deleting what it does not keep | [`collect`] |
//! | `copy/` | copying runs to other stores, replicas, recovering from them | [`plan_copy`], [`Replicator`] |
//! | [`interop`] | checkpoints as folders of safetensors files, import and export | |
//! | [`mod@diff`] | how two checkpoints differ | |

mod checkpoint;
mod copy;
pub mod diff;
mod gc;
pub mod interop;
mod location;
mod log;
mod object;
pub mod shell;
pub mod uri;

pub use checkpoint::{
    BadPack, CommitError, Committed, QuarantineError, ReadManifestError, RestoreError, RestoreReport,
    SaveError, Sources, StateReader, Verified, Verifier, VerifyError, commit, quarantine, read_state,
    restore, restore_some, save_slice, verify,
};
pub use copy::{
    Amount, CheckpointSelection, Copied, CopyError, CopyPlan, CopyProgress, CopySize, CopyWork, Lag,
    PlannedCheckpoint, ReplicateError, Replicator, SkipReason, SkippedCheckpoint, Unreplicated, is_ahead,
    newer, plan_copy, recover_from,
};
pub use gc::{
    CollectError, Collected, Collector, KeepEvery, Retention, UnreadableManifest, collect, collectable,
};
pub use location::{
    Environment, Need, OpenError, Price, PriceError, Prices, ProbeError, Refusal, Store, egress_price,
};
pub use log::{
    AppendError, CheckpointInfo, CreateError, Ended, Entry, EntryError, HostedBy, LogError, Origin, Outcome,
    Record, Relation, ReplicaLogError, ReplicaOf, RunDir, RunLog, Stopped, Term, TermError, open_run,
    open_run_in, relation,
};
pub use object::{Limits, RetryPolicy, SlowDown, StoreError};
