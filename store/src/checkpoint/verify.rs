//! Reading a whole checkpoint without keeping it: is every pack good, and what is the digest of the state?

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use whimbrel_state::{Hash, Layout, Manifest, ManifestError};

use crate::{
    checkpoint::{
        block_reader::{BadPack, Unread},
        read_ahead::{Read, Units},
        save::Limits,
        sources::Sources,
    },
    log::run_dir::RunDir,
    object::folder::StoreError,
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
    #[error("the checkpoint of step {step} is damaged, {} of its packs cannot be used: {}", bad.len(), listed(bad))]
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

/// Reads every pack of a checkpoint, compares every block with its hash, and computes the digest of the state on the
/// way. `progress` is told of bytes as they are read. In memory is what a [`StateReader`](crate::StateReader) holds.
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

    let mut bad: Vec<BadPack> = Vec::new();
    let mut bytes = 0;
    let mut feed = Some(feed);
    let all = 0..manifest.layout.bytes() as u64;
    let mut units = Units::new(&Sources::new(run.clone()), manifest, all, true, limits);
    while let Some(Read { unit, bytes: read, memory }) = units.next().await? {
        match read {
            Ok(parts) => {
                bytes += unit.bytes();
                // The digest's end went away only if its thread did, which joining it reports.
                if let Some(feed) = &feed {
                    feed.send((parts, memory)).await.ok();
                }
            }
            // There is no digest of a state with a hole.
            Err(Unread::Bad(found)) => {
                feed = None;
                if bad.last().is_none_or(|last| last.pack() != found.pack()) {
                    bad.push(found);
                }
            }
            Err(Unread::Store(error)) => return Err(error.into()),
        }
        progress(unit.bytes());
    }
    drop(feed);

    let cut_off = |source| StoreError::CutOff { object: run.uri().to_owned(), source };
    match digest.await.map_err(cut_off)? {
        Some(state) if bad.is_empty() => Ok(Verified { state, bytes }),
        _ => Err(VerifyError::Damaged { step, bad }),
    }
}

/// Bytes of the state, and the memory that they take.
type Fed = (Vec<Bytes>, Option<OwnedSemaphorePermit>);

/// The digest of the state that comes in pieces, in order; `None` if they end before it does.
fn digest(layout: &Layout, step: u64, mut fed: mpsc::Receiver<Fed>) -> Option<Hash> {
    let (mut parts, mut memory) = (VecDeque::new(), None);
    let digest = whimbrel_state::digest(layout, step, |index, sink| {
        let mut left = layout.range_of(index).len();
        while left > 0 {
            let Some(mut part) = parts.pop_front() else {
                drop(memory.take());
                let (next, its_memory) = fed.blocking_recv().ok_or(())?;
                parts.extend(next);
                memory = its_memory;
                continue;
            };
            let now: Bytes = part.split_to(left.min(part.len()));
            left -= now.len();
            sink(&now);
            if !part.is_empty() {
                parts.push_front(part);
            }
        }
        Ok::<_, ()>(())
    });
    digest.ok()
}
