//! Reading every byte of checkpoints without keeping it: are their packs good, and what is the digest of each state?
//!
//! `whimbrel checkpoint verify` calls this, for one checkpoint or for all of a run.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::sync::mpsc;
use whimbrel_state::{Hash, Manifest, ManifestError, Pack};

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
    progress: impl FnMut(u64),
) -> Result<Verified, VerifyError> {
    let step = manifest.step;
    let found = read_packs(run, manifest, manifest.packs.iter().cloned().collect(), limits, progress).await?;
    match found.state {
        Some(state) if found.bad.is_empty() => Ok(Verified { state, bytes: found.bytes }),
        _ => Err(VerifyError::Damaged { step, bad: found.bad }),
    }
}

/// Verifies checkpoints of a run, one after another. A pack that several of them share is read once.
#[derive(Debug)]
pub struct Verifier {
    run: RunDir,
    limits: Limits,
    /// The packs that were read, and what is wrong with each.
    read: HashMap<Hash, Option<BadPack>>,
}

impl Verifier {
    /// A verifier that has read nothing yet. It reads from `run` alone, not from its replicas.
    pub fn new(run: &RunDir, limits: &Limits) -> Self {
        Self { run: run.clone(), limits: *limits, read: HashMap::new() }
    }

    /// Bytes that a new verifier reads for these checkpoints.
    pub fn bytes_of<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> u64 {
        let (mut read, mut bytes) = (HashSet::new(), 0);
        for manifest in manifests {
            let unread = unread(manifest, |hash| read.contains(hash));
            bytes += unread.iter().map(|pack| pack.length).sum::<u64>();
            read.extend(manifest.packs.iter().map(|pack| pack.hash));
        }
        bytes
    }

    /// Verifies a checkpoint as [`verify`] does, but reads only the packs that it has not read yet.
    ///
    /// Returns the digest of the state; `None` if packs were read before: the digest takes all bytes in order.
    pub async fn verify(
        &mut self,
        manifest: &Manifest,
        progress: impl FnMut(u64),
    ) -> Result<Option<Hash>, VerifyError> {
        let packs = unread(manifest, |hash| self.read.contains_key(hash));
        let found = read_packs(&self.run, manifest, packs.clone(), &self.limits, progress).await?;
        for pack in &packs {
            let bad = found.bad.iter().find(|bad| bad.pack() == pack.hash);
            self.read.insert(pack.hash, bad.cloned());
        }
        let mut seen = HashSet::new();
        let packs = manifest.packs.iter().filter(|pack| seen.insert(pack.hash));
        let bad: Vec<_> = packs.filter_map(|pack| self.read.get(&pack.hash).cloned().flatten()).collect();
        if bad.is_empty() { Ok(found.state) } else { Err(VerifyError::Damaged { step: manifest.step, bad }) }
    }
}

/// The packs of a checkpoint that have to be read: all, in order, if none was read before; otherwise each of the others
/// once.
fn unread(manifest: &Manifest, is_read: impl Fn(&Hash) -> bool) -> VecDeque<Pack> {
    if !manifest.packs.iter().any(|pack| is_read(&pack.hash)) {
        return manifest.packs.iter().cloned().collect();
    }
    let mut seen = HashSet::new();
    let packs = manifest.packs.iter().filter(|pack| !is_read(&pack.hash) && seen.insert(pack.hash));
    packs.cloned().collect()
}

/// What a read of packs found.
struct Found {
    /// The digest of the state, if all packs of the checkpoint were read and are good.
    state: Option<Hash>,
    bytes: u64,
    /// The packs that are missing or damaged.
    bad: Vec<BadPack>,
}

/// Reads packs of a checkpoint.
async fn read_packs(
    run: &RunDir,
    manifest: &Manifest,
    packs: VecDeque<Pack>,
    limits: &Limits,
    mut progress: impl FnMut(u64),
) -> Result<Found, VerifyError> {
    let step = manifest.step;
    manifest.check().map_err(|source| VerifyError::Manifest { step, source })?;

    let (send, input) = mpsc::channel(1);
    let layout = manifest.layout.clone();
    let digest = tokio::task::spawn_blocking(move || digest_received(&layout, step, input));
    // A state of which some bytes are not read, or are bad, has no digest.
    let mut to_digest = (packs.len() == manifest.packs.len()).then_some(send);

    let mut bad: Vec<BadPack> = Vec::new();
    let mut bytes = 0;
    let mut reads = ReadAhead::of_packs(&Sources::new(run.clone()), manifest, packs, limits);
    while let Some(Completed { read, bytes: parts, memory }) = reads.next().await? {
        match parts {
            Ok(parts) => {
                bytes += read.bytes();
                // The receiver is gone only if its thread is. The join below reports that.
                if let Some(to_digest) = &to_digest {
                    to_digest.send((parts, memory)).await.ok();
                }
            }
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
    Ok(Found { state: digest.await.map_err(cut_off)?, bytes, bad })
}
