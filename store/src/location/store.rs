//! A place for runs, by its URI.

use std::{fs, future::ready, io, path::PathBuf, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, local::LocalFileSystem, path::Path, prefix::PrefixStore};
use whimbrel_plan::RunId;

use crate::{
    location::{CredentialSource, Environment, Location, OpenError, uri},
    log::{entry, run_dir::RunDir},
    object::{
        folder::{Folder, StoreError},
        retry::RetryPolicy,
    },
};

/// A place for runs: a folder, or a prefix in a bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Folder,
    /// Where it is, and who we are there: what a refusal is explained with.
    place: Arc<Location>,
    credentials: CredentialSource,
}

/// What to do about a local folder that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Refuse,
}

impl Store {
    /// Opens a store: `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix` (credentials from the
    /// environment and where each cloud's tools keep them), `file:///folder`, or the path of a folder, which is made if
    /// it is not there. [`place`](crate::location) has all forms.
    ///
    /// Nothing is sent: whether a cloud lets us in, [`probe`](Self::probe) tells.
    pub fn open(uri: &str) -> Result<Self, OpenError> {
        Self::open_in(uri, &Environment::of_process())
    }

    /// The same with the credentials of an environment that need not be this process's.
    pub fn open_in(uri: &str, environment: &Environment) -> Result<Self, OpenError> {
        Self::open_at(Location::parse(uri)?, environment, Missing::Make)
    }

    /// The same, but a folder that is not there is refused, and not made: for those who only read.
    pub fn open_existing(uri: &str) -> Result<Self, OpenError> {
        Self::open_at(Location::parse(uri)?, &Environment::of_process(), Missing::Refuse)
    }

    pub(crate) fn open_at(
        place: Location,
        environment: &Environment,
        missing: Missing,
    ) -> Result<Self, OpenError> {
        if let Location::Folder(path) = place {
            return Self::open_folder(path, missing);
        }
        let (objects, credentials) = place.client(environment)?;
        let folder = Folder::new(objects, place.prefix(), &place.to_string(), RetryPolicy::default());
        Ok(Self { folder, place: Arc::new(place), credentials })
    }

    fn open_folder(path: PathBuf, missing: Missing) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Folder { path: path.clone(), source };
        if missing == Missing::Make {
            fs::create_dir_all(&path).map_err(unusable)?;
        }
        let path = fs::canonicalize(&path).map_err(unusable)?;
        let not_a_folder = || unusable(io::ErrorKind::NotADirectory.into());
        if !path.is_dir() {
            return Err(not_a_folder());
        }
        let uri = uri::of_folder(&path).ok_or_else(not_a_folder)?;
        // Without fsync a power failure could keep a log entry and lose the packs that it vouches for.
        let objects = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| unusable(io::Error::other(error)))?
            .with_fsync(true);
        let folder = Folder::new(Arc::new(objects), Path::default(), &uri, RetryPolicy::default());
        Ok(Self { folder, place: Arc::new(Location::Folder(path)), credentials: CredentialSource::Unknown })
    }

    /// A store over any implementation of [`ObjectStore`], under the name `uri`; it must be able to create objects
    /// without overwriting.
    pub fn with_backend(uri: &str, objects: Arc<dyn ObjectStore>) -> Self {
        Self {
            folder: Folder::new(objects, Path::default(), uri, RetryPolicy::default()),
            place: Arc::new(Location::Other(uri.to_owned())),
            credentials: CredentialSource::Unknown,
        }
    }

    /// The same store, asked with other retry_policy.
    pub fn with_retry_policy(self, retry_policy: RetryPolicy) -> Self {
        Self { folder: self.folder.with_retry_policy(retry_policy), ..self }
    }

    /// The canonical, absolute URI: [`open`](Self::open) of it is this store, from any working directory. It holds no
    /// secret.
    pub fn uri(&self) -> &str {
        self.folder.uri()
    }

    /// The store's client itself, under the store's prefix: without the deadlines and retries that everything else in
    /// this crate has. For measurements, and for tests of what a store can do.
    pub fn objects(&self) -> impl ObjectStore + Clone + 'static {
        PrefixStore::new(Arc::clone(self.folder.objects()), self.place.prefix())
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn place(&self) -> &Location {
        &self.place
    }

    pub(crate) fn credentials(&self) -> &CredentialSource {
        &self.credentials
    }

    /// The directory of a run, which may or may not exist.
    pub fn run(&self, id: &RunId) -> RunDir {
        RunDir::new(id.clone(), self.folder.inside(id.as_str()))
    }

    /// The runs in this store, by name: the folders that hold the first entry of a log.
    pub async fn runs(&self) -> Result<Vec<RunId>, StoreError> {
        let names = self.folder.folders().await?;
        let ids: Vec<RunId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let looked_up = ids.into_iter().map(|id| async move {
            let first = self.run(&id).folder().head(&entry::name(0)).await?;
            Ok(first.map(|_| id))
        });
        let mut runs: Vec<RunId> =
            stream::iter(looked_up).buffered(16).try_filter_map(|run| ready(Ok(run))).try_collect().await?;
        runs.sort();
        Ok(runs)
    }
}
