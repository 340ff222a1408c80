//! Reading every byte of a checkpoint without keeping it: are its packs good, and what is the digest of its state?

use tokio::sync::mpsc;
use whimbrel_state::{Hash, Manifest, ManifestError};

use crate::{
    checkpoint::{
        bad_pack::{BadPack, ReadPackError},
        read_ahead::{Completed, ReadAhead},
        sources::Sources,
        state_digest::digest_received,
    },
    log::RunDir,
    object::{Limits, StoreError},
};

/// A checkpoint of which every byte is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The digest of the state.
    pub state: Hash,
    /// Bytes read, headers of packs included.
    pub bytes: u64,
}

/// Why a checkpoint is not, or was not found to be, good.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The manifest describes no whole state.
    #[error("the manifest of step {step} describes no whole state")]
    Manifest {
        /// The checkpoint's step.
        step: u64,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Packs are missing or damaged.
    #[error("the checkpoint of step {step} is damaged, {} of its packs cannot be used: {}", bad.len(), listed(bad))]
    Damaged {
        /// The checkpoint's step.
        step: u64,
        /// All packs that are missing or damaged.
        bad: Vec<BadPack>,
    },
    /// A request to the store failed. The checkpoint may be good.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(bad: &[BadPack]) -> String {
    bad.iter().map(BadPack::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads every pack of a checkpoint, compares every block with its hash, and computes the digest of the state.
/// `progress` is called with the number of bytes of each read. Memory holds as much as a
/// [`StateReader`](crate::StateReader) does.
///
/// It goes on after a bad pack and finds all of them.
pub async fn verify(
    run: &RunDir,
    manifest: &Manifest,
    limits: &Limits,
    mut progress: impl FnMut(u64),
) -> Result<Verified, VerifyError> {
    let step = manifest.step;
    manifest.check().map_err(|source| VerifyError::Manifest { step, source })?;

    let (send, input) = mpsc::channel(1);
    let layout = manifest.layout.clone();
    let digest = tokio::task::spawn_blocking(move || digest_received(&layout, step, input));

    let mut bad: Vec<BadPack> = Vec::new();
    let mut bytes = 0;
    let mut to_digest = Some(send);
    let mut reads = ReadAhead::of_all_packs(&Sources::new(run.clone()), manifest, limits);
    while let Some(Completed { read, bytes: parts, memory }) = reads.next().await? {
        match parts {
            Ok(parts) => {
                bytes += read.bytes();
                // The receiver is gone only if its thread is. The join below reports that.
                if let Some(to_digest) = &to_digest {
                    to_digest.send((parts, memory)).await.ok();
                }
            }
            // A state with a hole has no digest.
            Err(ReadPackError::Bad(found)) => {
                to_digest = None;
                if bad.last().is_none_or(|last| last.pack() != found.pack()) {
                    bad.push(found);
                }
            }
            Err(ReadPackError::Store(error)) => return Err(error.into()),
        }
        progress(read.bytes());
    }
    drop(to_digest);

    let cut_off = |source| StoreError::CutOff { object: run.uri().to_owned(), source };
    match digest.await.map_err(cut_off)? {
        Some(state) if bad.is_empty() => Ok(Verified { state, bytes }),
        _ => Err(VerifyError::Damaged { step, bad }),
    }
}
