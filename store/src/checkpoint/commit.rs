//! The commit of a checkpoint: its packs are looked up, its manifest is put, and the run log names it.
//!
//! The coordinator calls [`commit`] when all slices of a state are saved. A copy calls
//! [`append_checkpoint`] when all packs of a checkpoint have arrived.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use whimbrel_state::{Hash, Manifest, Pack};

use crate::{
    checkpoint::{manifest::manifest_name, put_pack::stored_length},
    log::{AppendError, Origin, Record, RunDir, Term},
    object::{Folder, StoreError},
};

/// Packs looked up at a time before a commit.
const LOOK_UPS: usize = 32;

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Steps applied to its state.
    pub step: u64,
    /// The manifest's name in the run's directory.
    pub manifest: String,
    /// Bytes of its packs.
    pub bytes: u64,
    /// The number of the log entry that made it a checkpoint.
    pub entry: u64,
}

/// Why a checkpoint was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The manifest does not describe a whole state of this run.
    #[error("the checkpoint of step {step} describes no state of this run: {why}")]
    Invalid {
        /// Its step.
        step: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The store does not have all its packs. Save their slices again.
    #[error("the checkpoint of step {step} lacks {} of its packs, {} among them; save it again", packs.len(), packs.first().map(Hash::to_string).unwrap_or_default())]
    Lacks {
        /// Its step.
        step: u64,
        /// The packs that are missing or have a wrong length.
        packs: Vec<Hash>,
    },
    /// The entry was not appended to the log.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Commits a checkpoint whose packs are saved: puts its manifest and appends it to the log. `state` is the digest of
/// the state, if it was computed.
///
/// Every pack is looked up before the entry is appended. A save may have skipped a pack because the store had it, and a
/// collection may have deleted that pack since. Commit and collection both hold `&mut Term`, so one coordinator cannot
/// collect between look-up and entry. If the log has grown in between, by whatever entry, the packs are looked up
/// again.
pub async fn commit(
    term: &mut Term,
    manifest: &Manifest,
    state: Option<Hash>,
) -> Result<Committed, CommitError> {
    let step = manifest.step;
    let invalid = |why: String| CommitError::Invalid { step, why };
    manifest.check().map_err(|error| invalid(error.to_string()))?;
    if manifest.run != term.run().id().as_str() {
        return Err(invalid(format!("it is of run {:?}", manifest.run)));
    }
    let bytes = Bytes::from(serde_json::to_vec(manifest).map_err(|error| invalid(error.to_string()))?);
    let name = manifest_name(step, &Hash::of(&bytes));
    append_checkpoint(term, manifest, &name, bytes, state, None).await
}

/// Commits a checkpoint whose manifest has this name and these bytes. `origin` says where a copied checkpoint was
/// committed first; it is `None` for a new one.
pub(crate) async fn append_checkpoint(
    term: &mut Term,
    manifest: &Manifest,
    name: &str,
    bytes: Bytes,
    state: Option<Hash>,
    origin: Option<Origin>,
) -> Result<Committed, CommitError> {
    let (step, stored) = (manifest.step, manifest.stored_bytes());
    let record = Record::Checkpoint { step, manifest: name.to_owned(), bytes: stored, state, origin };
    loop {
        let packs = lacking(term.run(), manifest).await?;
        if !packs.is_empty() {
            return Err(CommitError::Lacks { step, packs });
        }
        term.run().put_manifest(name, bytes.clone()).await?;
        if let Some(entry) = term.append_next(record.clone()).await? {
            return Ok(Committed { step, manifest: name.to_owned(), bytes: stored, entry });
        }
    }
}

/// The packs of a manifest that the store does not have in their right length.
pub(crate) async fn lacking(run: &RunDir, manifest: &Manifest) -> Result<Vec<Hash>, StoreError> {
    let look_ups: Vec<_> =
        manifest.packs.iter().map(|pack| is_stored(run.folder().clone(), pack.clone())).collect();
    let mut looked_up = stream::iter(look_ups).buffered(LOOK_UPS);
    let mut lacking = Vec::new();
    while let Some((hash, is_stored)) = looked_up.try_next().await? {
        if !is_stored {
            lacking.push(hash);
        }
    }
    Ok(lacking)
}

/// Whether the store has a pack in its right length.
async fn is_stored(folder: Folder, pack: Pack) -> Result<(Hash, bool), StoreError> {
    Ok((pack.hash, stored_length(&folder, &pack).await? == Some(pack.length)))
}
