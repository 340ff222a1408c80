//! Why a copy failed.

use whimbrel_plan::RunId;

use crate::{
    checkpoint::{CommitError, ReadManifestError},
    log::{AppendError, LogError, ReplicaLogError},
    object::StoreError,
};

/// Why a copy was not made, or not to its end. Made again, it goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The two directories have different names. A run keeps its name in every store: its manifests contain it.
    #[error(
        "{source_uri} is run {source_id}, and {destination} would be run {destination_id}: a copy keeps its run's name"
    )]
    OtherName {
        /// The source's URI.
        source_uri: String,
        /// The run in it.
        source_id: RunId,
        /// The destination's URI.
        destination: String,
        /// The run that it would be.
        destination_id: RunId,
    },
    /// The source has no usable checkpoint of the selected step.
    #[error(
        "{source_uri} has no checkpoint of step {step} that can be used; see which it has with `whimbrel checkpoint list`"
    )]
    NoSuchStep {
        /// The source's URI.
        source_uri: String,
        /// The step.
        step: u64,
    },
    /// The source's log cannot be read.
    #[error(transparent)]
    Source(#[from] LogError),
    /// The destination cannot be made a copy of the source.
    #[error(transparent)]
    Replica(#[from] ReplicaLogError),
    /// Another program took the destination's term.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Packs of a checkpoint were put, and the destination does not have them when the checkpoint is committed.
    #[error(
        "the checkpoint of step {step} does not become whole in {destination}: packs that were put are not there"
    )]
    NotWhole {
        /// Its step.
        step: u64,
        /// The destination's URI.
        destination: String,
        /// Why it could not be committed.
        source: CommitError,
    },
    /// A checkpoint to be recovered is of a later Whimbrel: this program cannot tell whether it is damaged.
    #[error("the checkpoint of step {step} cannot be recovered")]
    Unreadable {
        /// Its step.
        step: u64,
        /// What its manifest is.
        source: ReadManifestError,
    },
    /// A request to the source or the destination failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
