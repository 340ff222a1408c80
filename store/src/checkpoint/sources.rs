//! Where a run's checkpoints are read from: its directory, and its replicas in other stores.
//!
//! What is missing or damaged in the run's directory is read from a replica and then put back into the run's directory:
//! see [`heal`](super::heal). Healing needs no term: packs and manifests are named by their content, so a write by any
//! program is harmless.

use whimbrel_state::Manifest;

use crate::{checkpoint::manifest::ReadManifestError, log::RunDir};

/// A run's directory, called the primary, and its replicas, in the order in which they are read. Cheap to clone.
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

    /// Adds a replica. It is read after those added before.
    pub fn with_replica(mut self, replica: RunDir) -> Self {
        self.replicas.push(replica);
        self
    }

    /// The run's directory, which is healed from the replicas.
    pub fn primary(&self) -> &RunDir {
        &self.primary
    }

    pub(super) fn replicas(&self) -> &[RunDir] {
        &self.replicas
    }

    /// The primary and the replicas, in the order in which they are read.
    pub fn all(&self) -> impl Iterator<Item = &RunDir> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// Reads a manifest by its name from the first source that has it undamaged. If the primary's is missing or
    /// damaged, it is put back.
    ///
    /// If no source has it, the error is the first of a replica that could not answer (it may have the manifest), else
    /// the primary's.
    pub async fn manifest(&self, name: &str) -> Result<Manifest, ReadManifestError> {
        let error = match self.primary.manifest(name).await {
            Ok(manifest) => return Ok(manifest),
            Err(error) => error,
        };
        let mut unanswered = None;
        for replica in &self.replicas {
            match replica.manifest(name).await {
                Ok(manifest) => {
                    let (run, found_in) = (self.primary.uri(), replica.uri());
                    tracing::warn!(run, name, %error, found_in, "a manifest is read from a replica");
                    if error.is_repairable() {
                        self.put_back_manifest(name, replica).await;
                    }
                    return Ok(manifest);
                }
                Err(other) => {
                    tracing::warn!(replica = replica.uri(), name, error = %other, "the replica does not have the manifest either");
                    if !other.is_damage() {
                        unanswered.get_or_insert(other);
                    }
                }
            }
        }
        Err(if error.is_damage() { unanswered.unwrap_or(error) } else { error })
    }

    /// A failure is logged and does not fail the read.
    async fn put_back_manifest(&self, name: &str, replica: &RunDir) {
        let put = async {
            let bytes = replica.manifest_bytes(name).await?;
            Ok::<_, ReadManifestError>(self.primary.folder().replace(name, bytes).await?)
        };
        if let Err(error) = put.await {
            tracing::warn!(run = self.primary.uri(), name, %error, "a manifest could not be put back");
        }
    }
}
