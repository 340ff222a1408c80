//! A manifest as an object in the run's directory: its name, reading it, writing it.
//!
//! A manifest is named by its step and its hash. Damage to it is always noticed, and writing it twice is harmless. It
//! is a checkpoint's manifest once an entry of the run log names it: see [`commit`](crate::commit).

use bytes::Bytes;
use serde::Deserialize;
use whimbrel_state::{Hash, Manifest, ManifestError, manifest::FORMAT};

use crate::{
    log::RunDir,
    object::{Created, StoreError},
};

/// The longest manifest that is read, in bytes. The manifest of a state of tens of terabytes is shorter.
const MAX_BYTES: u64 = 1 << 30;

/// Why a manifest cannot be used.
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
        /// The manifest's URI.
        object: String,
    },
    /// The bytes do not hash to the hash in the name.
    #[error("the manifest {object} is damaged: its bytes hash to {found}")]
    Damaged {
        /// The manifest's URI.
        object: String,
        /// The hash of the bytes in the store.
        found: Hash,
    },
    /// The object is longer than any manifest.
    #[error("the manifest {object} is damaged: it is {length} bytes long, longer than any manifest")]
    TooLong {
        /// The manifest's URI.
        object: String,
        /// Its length in bytes.
        length: u64,
    },
    /// A later Whimbrel wrote it.
    #[error(
        "the manifest {object} is of format {format}, and this program reads up to {FORMAT}; use a newer whimbrel, in the workers too"
    )]
    Newer {
        /// The manifest's URI.
        object: String,
        /// Its format.
        format: u32,
    },
    /// The bytes are undamaged and are not a manifest that this program can read.
    #[error("the manifest {object} cannot be read")]
    Content {
        /// The manifest's URI.
        object: String,
        /// Why the JSON was refused.
        source: serde_json::Error,
    },
    /// The packs do not make a whole state.
    #[error("the manifest {object} describes no whole state")]
    Invalid {
        /// The manifest's URI.
        object: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReadManifestError {
    /// Whether the checkpoint is damaged: quarantine it and use the one before. Otherwise the store did not answer, or
    /// the manifest is of a later Whimbrel.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Newer { .. })
    }

    /// Whether the bytes that were written are gone, so that a copy from a replica repairs the manifest.
    pub(crate) fn is_repairable(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Damaged { .. } | Self::TooLong { .. })
    }
}

/// The part that a manifest of every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl RunDir {
    /// Reads a manifest by its name in the run's directory. Checks its hash, and that it describes a whole state.
    pub async fn manifest(&self, name: &str) -> Result<Manifest, ReadManifestError> {
        self.manifest_and_bytes(name).await.map(|(manifest, _)| manifest)
    }

    /// Reads a manifest. Returns it and its bytes as stored.
    pub(crate) async fn manifest_and_bytes(
        &self,
        name: &str,
    ) -> Result<(Manifest, Bytes), ReadManifestError> {
        let bytes = self.manifest_bytes(name).await?;
        let object = || self.folder().uri_of(name);
        let unusable = |source| ReadManifestError::Content { object: object(), source };
        // The format first: the rest of a later format may not parse.
        let Format { format } = serde_json::from_slice(&bytes).map_err(unusable)?;
        if format > FORMAT {
            return Err(ReadManifestError::Newer { object: object(), format });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(unusable)?;
        manifest.check().map_err(|source| ReadManifestError::Invalid { object: object(), source })?;
        Ok((manifest, bytes))
    }

    /// Reads the bytes of a manifest and checks their hash.
    pub(crate) async fn manifest_bytes(&self, name: &str) -> Result<Bytes, ReadManifestError> {
        let expected =
            manifest_hash(name).ok_or_else(|| ReadManifestError::Name { name: name.to_owned() })?;
        let object = || self.folder().uri_of(name);
        let mut attempts = 2;
        loop {
            let bytes = match self.folder().get(name, MAX_BYTES).await {
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
            // A second read tells damage in the store from damage on the network, which passes.
            attempts -= 1;
            if attempts == 0 {
                return Err(ReadManifestError::Damaged { object: object(), found });
            }
        }
    }

    /// Writes a manifest under its name. One that is there already in the right bytes stays.
    pub(crate) async fn put_manifest(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let folder = self.folder();
        if folder.create(name, bytes.clone()).await? == Created::New {
            return Ok(());
        }
        // An earlier commit wrote the same manifest. If that one is damaged, it is replaced.
        match folder.get(name, MAX_BYTES).await? {
            Some(found) if found == bytes => Ok(()),
            _ => folder.replace(name, bytes).await,
        }
    }
}

/// The name of a manifest in the run's directory.
pub(crate) fn manifest_name(step: u64, hash: &Hash) -> String {
    format!("manifests/{step:012}-{hash}.json")
}

/// The hash in the name of a manifest; `None` if `name` is not the name of a manifest.
fn manifest_hash(name: &str) -> Option<Hash> {
    let (step, hash) = name.strip_prefix("manifests/")?.strip_suffix(".json")?.split_once('-')?;
    let (step, hash) = (step.parse().ok()?, hash.parse().ok()?);
    (manifest_name(step, &hash) == name).then_some(hash)
}
