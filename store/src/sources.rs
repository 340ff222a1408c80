//! Where a run's checkpoints are read from: its directory, and copies of it in other stores.
//!
//! What is missing or damaged in the first is read from the next, and put back into the first, so that it is whole
//! again for whoever comes after. Putting back is harmless whoever holds the run's epoch: packs and manifests are named
//! by their content.

use bytes::Bytes;
use whimbrel_state::{Manifest, Pack};

use crate::{
    checkpoint::ReadManifestError,
    fetch::{BadPack, fetch},
    folder::StoreError,
    pack,
    run_dir::RunDir,
};

/// A run's directory and its replicas, in the order in which they are asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sources {
    primary: RunDir,
    replicas: Vec<RunDir>,
}

impl From<RunDir> for Sources {
    fn from(primary: RunDir) -> Self {
        Self::new(primary)
    }
}

impl Sources {
    /// The run's directory alone.
    pub fn new(primary: RunDir) -> Self {
        Self { primary, replicas: Vec::new() }
    }

    /// And a copy of it, asked after those before.
    pub fn with_replica(mut self, replica: RunDir) -> Self {
        self.replicas.push(replica);
        self
    }

    /// The run's directory: what is missing there is put back.
    pub fn primary(&self) -> &RunDir {
        &self.primary
    }

    /// All of them, the primary first.
    pub fn all(&self) -> impl Iterator<Item = &RunDir> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// Reads a manifest by its name from the first source that has it undamaged, and puts it back into the primary
    /// where that one's is missing or damaged. If none has it, the primary's error is returned.
    pub async fn manifest(&self, name: &str) -> Result<Manifest, ReadManifestError> {
        let error = match self.primary.manifest(name).await {
            Ok(manifest) => return Ok(manifest),
            Err(error) => error,
        };
        for replica in &self.replicas {
            match replica.manifest(name).await {
                Ok(manifest) => {
                    let (run, found_in) = (self.primary.uri(), replica.uri());
                    tracing::warn!(run, name, %error, found_in, "a manifest is read from a replica");
                    if matches!(error, ReadManifestError::Missing { .. } | ReadManifestError::Damaged { .. })
                    {
                        self.put_back_manifest(name, replica).await;
                    }
                    return Ok(manifest);
                }
                Err(other) => tracing::warn!(replica = replica.uri(), name, error = %other, "nor is it here"),
            }
        }
        Err(error)
    }

    /// Failing is no failure of who reads: it is said and left.
    async fn put_back_manifest(&self, name: &str, replica: &RunDir) {
        let put = async {
            let bytes = replica.manifest_bytes(name).await?;
            Ok::<_, ReadManifestError>(self.primary.folder().replace(name, bytes).await?)
        };
        if let Err(error) = put.await {
            tracing::warn!(run = self.primary.uri(), name, %error, "a manifest could not be put back");
        }
    }

    /// Reads a pack from the first source that has it whole, and puts it back into the primary where that one's is
    /// missing or damaged. The flag says whether it did.
    ///
    /// If no source has it, the primary's finding is returned; if a source that might have it did not answer, its error.
    pub(crate) async fn pack(&self, wanted: &Pack) -> Result<Result<(Bytes, bool), BadPack>, StoreError> {
        let mut finding = None;
        let mut silent = None;
        for (index, source) in self.all().enumerate() {
            match fetch(source.folder(), wanted).await {
                Ok(Ok(bytes)) => {
                    let back = index > 0 && finding.is_some() && self.put_back(wanted, bytes.clone()).await;
                    return Ok(Ok((bytes, back)));
                }
                Ok(Err(bad)) => {
                    tracing::warn!(run = source.uri(), %bad, "not to be read from this source");
                    finding = finding.or(Some(bad));
                }
                Err(error) => {
                    tracing::warn!(run = source.uri(), pack = %wanted.hash, %error, "cannot be read from this source");
                    silent = silent.or(Some(error));
                }
            }
        }
        match (silent, finding) {
            (Some(error), _) => Err(error),
            (None, Some(bad)) => Ok(Err(bad)),
            (None, None) => Ok(Err(BadPack::Missing { pack: wanted.hash })),
        }
    }

    /// Failing is no failure of who reads: it is said and left.
    async fn put_back(&self, wanted: &Pack, bytes: Bytes) -> bool {
        let put = self.primary.folder().replace(&pack::name(&wanted.hash), bytes).await;
        if let Err(error) = &put {
            tracing::warn!(run = self.primary.uri(), pack = %wanted.hash, %error, "a pack could not be put back");
        }
        put.is_ok()
    }
}
