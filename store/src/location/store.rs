//! An opened store: [`Store`].

use std::sync::Arc;

use object_store::{ObjectStore, path::Path, prefix::PrefixStore};

use super::{
    credentials::CredentialSource, environment::Environment, error::OpenError, folder, providers::Location,
};
use crate::object::{Folder, RetryPolicy};

/// A store of runs: a local folder, or a prefix in a bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Folder,
    /// The location and the source of the credentials: a refusal is explained with them.
    location: Arc<Location>,
    credentials: CredentialSource,
}

/// What to do if a local folder does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    Refuse,
}

impl Store {
    /// Opens a store: `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix` (credentials from the
    /// environment and from where each cloud's tools keep them), `file:///folder`, or the path of a folder, which is
    /// created if it does not exist. README.md lists all forms.
    ///
    /// No request is sent: [`probe`](Self::probe) tells whether a cloud grants access.
    pub fn open(uri: &str) -> Result<Self, OpenError> {
        Self::open_in(uri, &Environment::of_process())
    }

    /// [Opens](Self::open) a store with the credentials of the environment given.
    pub fn open_in(uri: &str, environment: &Environment) -> Result<Self, OpenError> {
        Self::open_at(Location::parse(uri)?, environment, IfMissing::Create)
    }

    /// [Opens](Self::open) a store for reading: a folder that does not exist is an error.
    pub fn open_existing(uri: &str) -> Result<Self, OpenError> {
        Self::open_at(Location::parse(uri)?, &Environment::of_process(), IfMissing::Refuse)
    }

    pub(crate) fn open_at(
        location: Location,
        environment: &Environment,
        if_missing: IfMissing,
    ) -> Result<Self, OpenError> {
        if let Location::Folder(path) = location {
            let (objects, path, uri) = folder::open(path, if_missing == IfMissing::Create)?;
            return Ok(Self {
                folder: Folder::new(objects, Path::default(), &uri, RetryPolicy::default()),
                location: Arc::new(Location::Folder(path)),
                credentials: CredentialSource::Unknown,
            });
        }
        let (objects, credentials) = location.client(environment)?;
        let folder = Folder::new(objects, location.prefix(), &location.to_string(), RetryPolicy::default());
        Ok(Self { folder, location: Arc::new(location), credentials })
    }

    /// A store over any implementation of [`ObjectStore`], under the name `uri`. The implementation must be able to create
    /// objects without overwriting.
    pub fn with_backend(uri: &str, objects: Arc<dyn ObjectStore>) -> Self {
        Self {
            folder: Folder::new(objects, Path::default(), uri, RetryPolicy::default()),
            location: Arc::new(Location::Other(uri.to_owned())),
            credentials: CredentialSource::Unknown,
        }
    }

    /// The same store with another retry policy.
    pub fn with_retry_policy(self, retry_policy: RetryPolicy) -> Self {
        Self { folder: self.folder.with_retry_policy(retry_policy), ..self }
    }

    /// The canonical, absolute URI: [`open`](Self::open) of it opens this store from any working directory. It holds no
    /// secret.
    pub fn uri(&self) -> &str {
        self.folder.uri()
    }

    /// The store's client itself, under the store's prefix, without this crate's deadlines and retries. For measurements,
    /// and for tests of what a store supports.
    pub fn objects(&self) -> impl ObjectStore + Clone + 'static {
        PrefixStore::new(Arc::clone(self.folder.objects()), self.location.prefix())
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn credentials(&self) -> &CredentialSource {
        &self.credentials
    }
}
