//! Reading a whole checkpoint without keeping it: is every pack good, and what is the digest of the state?

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use whimbrel_state::{Hash, Layout, Manifest, ManifestError};

use crate::{
    fetch::{BadPack, fetch},
    folder::StoreError,
    run_dir::RunDir,
    save::Limits,
};

/// A checkpoint of which every byte is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The digest of the state.
    pub state: Hash,
    /// Bytes read, headers included.
    pub bytes: u64,
}

/// A checkpoint that is not, or could not be found to be, good.
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
    #[error("{} of the packs of step {step} are bad: {}", bad.len(), listed(bad))]
    Damaged {
        /// The checkpoint's step.
        step: u64,
        /// Every one of them.
        bad: Vec<BadPack>,
    },
    /// A request to the store failed. The checkpoint may be good.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(bad: &[BadPack]) -> String {
    bad.iter().map(BadPack::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads every pack of a checkpoint, compares each with its hash, and computes the digest of the state on the way.
/// `progress` is told the bytes of each pack read. Up to [`Limits::concurrency`] packs, and a few more, are in memory.
///
/// A bad pack does not end it: all of them are found.
pub async fn verify(
    run: &RunDir,
    manifest: &Manifest,
    limits: &Limits,
    mut progress: impl FnMut(u64),
) -> Result<Verified, VerifyError> {
    let step = manifest.step;
    manifest.check().map_err(|source| VerifyError::Manifest { step, source })?;

    let (feed, fed) = mpsc::channel(1);
    let layout = manifest.layout.clone();
    let digest = tokio::task::spawn_blocking(move || digest(&layout, step, fed));

    let mut bad = Vec::new();
    let mut bytes = 0;
    let mut feed = Some(feed);
    // Packs of their own, since a future that borrows each in turn is not one the compiler lets go to other threads.
    let reads = manifest.packs.iter().cloned().map(|pack| async move {
        let read = fetch(run.folder(), &pack).await?;
        Ok::<_, StoreError>((pack, read))
    });
    let mut reads = stream::iter(reads).buffered(limits.concurrency.max(1));
    while let Some((pack, read)) = reads.try_next().await? {
        match read {
            Ok(content) => {
                for piece in &pack.pieces {
                    let start = piece.offset as usize;
                    let part = content.slice(start..start + piece.length as usize);
                    // The digest's end went away only if its thread did, which joining it reports.
                    if let Some(feed) = &feed {
                        feed.send(part).await.ok();
                    }
                }
                bytes += pack.length;
            }
            // There is no digest of a state with a hole.
            Err(found) => {
                feed = None;
                bad.push(found);
            }
        }
        progress(pack.length);
    }
    drop(feed);

    let cut_off = |source| StoreError::CutOff { object: run.uri().to_owned(), source };
    match digest.await.map_err(cut_off)? {
        Some(state) if bad.is_empty() => Ok(Verified { state, bytes }),
        _ => Err(VerifyError::Damaged { step, bad }),
    }
}

/// The digest of the state that comes in pieces, in order; `None` if they end before it does.
fn digest(layout: &Layout, step: u64, mut fed: mpsc::Receiver<Bytes>) -> Option<Hash> {
    let mut ahead = Bytes::new();
    let digest = whimbrel_state::digest(layout, step, |index, sink| {
        let mut left = layout.range_of(index).len();
        while left > 0 {
            if ahead.is_empty() {
                ahead = fed.blocking_recv().ok_or(())?;
            }
            let part = ahead.split_to(left.min(ahead.len()));
            left -= part.len();
            sink(&part);
        }
        Ok::<_, ()>(())
    });
    digest.ok()
}
