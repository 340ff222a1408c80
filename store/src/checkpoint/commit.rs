//! The commit of a checkpoint, and reading its manifest back.
//!
//! A manifest is named by its step and its hash, so it cannot be damaged unnoticed, and writing it twice is harmless.
//! It counts once the log names it.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use whimbrel_state::{Hash, Manifest, ManifestError, manifest::FORMAT};

use crate::{
    checkpoint::pack,
    log::{
        entry::{Origin, Record},
        run_dir::RunDir,
        term::{AppendError, Term},
    },
    object::folder::{Created, Folder, StoreError},
};

/// Bytes that the manifest of a state of tens of terabytes stays below.
const MOST_BYTES: u64 = 1 << 30;

/// Packs looked up at a time before a commit.
const LOOK_UPS: usize = 32;

/// A checkpoint that is committed.
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

/// A checkpoint that was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The manifest describes no whole state, or another run's.
    #[error("the checkpoint of step {step} describes no state of this run: {why}")]
    Invalid {
        /// Its step.
        step: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Packs that it names are not in the store. Save their slices again.
    #[error("the checkpoint of step {step} lacks {} of its packs, {} among them; save it again", packs.len(), packs.first().map(Hash::to_string).unwrap_or_default())]
    Lacks {
        /// Its step.
        step: u64,
        /// The packs.
        packs: Vec<Hash>,
    },
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadManifestError {
    /// The text is not the name of a manifest.
    #[error("{name:?} is not the name of a manifest, manifests/<step>-<hash>.json")]
    Name {
        /// The text.
        name: String,
    },
    /// There is no such object.
    #[error("the manifest {object} is not in the store")]
    Missing {
        /// Its URI.
        object: String,
    },
    /// Its bytes are not those that were written.
    #[error("the manifest {object} is damaged: its bytes hash to {found}")]
    Damaged {
        /// Its URI.
        object: String,
        /// The hash of its bytes.
        found: Hash,
    },
    /// No manifest is as long as it is.
    #[error("the manifest {object} is damaged: it is {length} bytes long, and none has so many")]
    TooLong {
        /// Its URI.
        object: String,
        /// Its length in bytes.
        length: u64,
    },
    /// Written by a later Whimbrel.
    #[error(
        "the manifest {object} is of format {format}, and this program reads up to {FORMAT}; use a newer whimbrel, in the workers too"
    )]
    Newer {
        /// Its URI.
        object: String,
        /// Its format.
        format: u32,
    },
    /// Undamaged, and yet not a manifest this program reads.
    #[error("the manifest {object} cannot be read")]
    Content {
        /// Its URI.
        object: String,
        /// Where it differs from one.
        source: serde_json::Error,
    },
    /// It describes no whole state.
    #[error("the manifest {object} describes no whole state")]
    Invalid {
        /// Its URI.
        object: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// As much of a manifest as every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl ReadManifestError {
    /// Whether the checkpoint is to blame, and not the way to it: quarantine it and use the one before.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Newer { .. })
    }

    /// Whether the bytes that were written are gone, and a copy of them would help.
    pub(crate) fn is_to_be_put_back(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Damaged { .. } | Self::TooLong { .. })
    }
}

impl RunDir {
    /// Reads a manifest by its name in the run's directory, and checks its hash and that it describes a whole state.
    pub async fn manifest(&self, name: &str) -> Result<Manifest, ReadManifestError> {
        self.manifest_and_bytes(name).await.map(|(manifest, _)| manifest)
    }

    /// A manifest, and the bytes that it was written as and is named by.
    pub(crate) async fn manifest_and_bytes(
        &self,
        name: &str,
    ) -> Result<(Manifest, Bytes), ReadManifestError> {
        let bytes = self.manifest_bytes(name).await?;
        let object = || self.folder().uri_of(name);
        let unusable = |source| ReadManifestError::Content { object: object(), source };
        // Of a later format, no more than that can be told.
        let Format { format } = serde_json::from_slice(&bytes).map_err(unusable)?;
        if format > FORMAT {
            return Err(ReadManifestError::Newer { object: object(), format });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(unusable)?;
        manifest.check().map_err(|source| ReadManifestError::Invalid { object: object(), source })?;
        Ok((manifest, bytes))
    }

    /// Reads the bytes of a manifest, and checks their hash.
    pub(crate) async fn manifest_bytes(&self, name: &str) -> Result<Bytes, ReadManifestError> {
        let expected = hash(name).ok_or_else(|| ReadManifestError::Name { name: name.to_owned() })?;
        let object = || self.folder().uri_of(name);
        let mut attempts = 2;
        loop {
            let bytes = match self.folder().get(name, MOST_BYTES).await {
                Err(StoreError::TooLong { object, length, .. }) => {
                    return Err(ReadManifestError::TooLong { object, length });
                }
                answered => answered?,
            };
            let bytes = bytes.ok_or_else(|| ReadManifestError::Missing { object: object() })?;
            let found = Hash::of(&bytes);
            if found == expected {
                return Ok(bytes);
            }
            // Read again before it is believed, as packs are: what the network did to it passes.
            attempts -= 1;
            if attempts == 0 {
                return Err(ReadManifestError::Damaged { object: object(), found });
            }
        }
    }
}

/// Commits a checkpoint whose packs are saved: writes its manifest and appends it to the log. `state` is the digest of
/// the state, if somebody computed it.
///
/// Before the log hears of it, every pack is looked up. That closes the race with collection: a save may have skipped a
/// pack because the store had it, and a sweep may have deleted it since. As long as one coordinator is leading the run,
/// commit and sweep both hold its `&mut Term`, so none can come between the look-up and the entry. And when the log
/// has grown in between, by whatever entry, they are looked up again.
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
    let name = name(step, &Hash::of(&bytes));
    publish(term, manifest, &name, bytes, state, None).await
}

/// Writes a manifest, whose bytes and name these are, and appends it to the log, unless packs of it are lacking.
pub(crate) async fn publish(
    term: &mut Term,
    manifest: &Manifest,
    name: &str,
    body: Bytes,
    state: Option<Hash>,
    origin: Option<Origin>,
) -> Result<Committed, CommitError> {
    let (step, bytes) = (manifest.step, manifest.stored_bytes());
    let record = Record::Checkpoint { step, manifest: name.to_owned(), bytes, state, origin };
    loop {
        let packs = lacking(term.run(), manifest).await?;
        if !packs.is_empty() {
            return Err(CommitError::Lacks { step, packs });
        }
        put_manifest(term.run(), name, body.clone()).await?;
        if let Some(entry) = term.append_next(record.clone()).await? {
            return Ok(Committed { step, manifest: name.to_owned(), bytes, entry });
        }
    }
}

/// The packs of a manifest that the store does not have in their right length.
async fn lacking(run: &RunDir, manifest: &Manifest) -> Result<Vec<Hash>, StoreError> {
    let look_ups: Vec<_> =
        manifest.packs.iter().map(|pack| look_up(run.folder().clone(), pack.hash, pack.length)).collect();
    let mut looked_up = stream::iter(look_ups).buffered(LOOK_UPS);
    let mut lacking = Vec::new();
    while let Some((hash, whole)) = looked_up.try_next().await? {
        if !whole {
            lacking.push(hash);
        }
    }
    Ok(lacking)
}

/// Whether a pack is in the store in its right length.
async fn look_up(folder: Folder, hash: Hash, length: u64) -> Result<(Hash, bool), StoreError> {
    let found = folder.head(&pack::name(&hash)).await?;
    Ok((hash, found.is_some_and(|found| found.size == length)))
}

async fn put_manifest(run: &RunDir, name: &str, bytes: Bytes) -> Result<(), StoreError> {
    let folder = run.folder();
    if folder.create(name, bytes.clone()).await? == Created::New {
        return Ok(());
    }
    // The same checkpoint was written before. If that one is damaged, this one heals it.
    match folder.get(name, MOST_BYTES).await? {
        Some(found) if found == bytes => Ok(()),
        _ => folder.replace(name, bytes).await,
    }
}

/// The name of a manifest in the run's directory.
fn name(step: u64, hash: &Hash) -> String {
    format!("manifests/{step:012}-{hash}.json")
}

/// The hash in a manifest's name; `None` if the text is not one.
fn hash(name: &str) -> Option<Hash> {
    let (step, hash) = name.strip_prefix("manifests/")?.strip_suffix(".json")?.split_once('-')?;
    let (step, hash) = (step.parse().ok()?, hash.parse().ok()?);
    (self::name(step, &hash) == name).then_some(hash)
}
