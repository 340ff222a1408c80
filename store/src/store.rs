//! A place for runs, by its URI.

use std::future::ready;

use std::{
    io,
    path::{self, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};
use url::Url;
use whimbrel_plan::{InvalidRunId, RunId};

use crate::{
    entry,
    folder::{Folder, StoreError},
    run_dir::RunDir,
    tries::Patience,
};

/// A place for runs: a folder, or a prefix in a bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Folder,
}

/// A store, or a run in it, that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No kind of store goes by the scheme.
    #[error(
        "{uri:?} is not a store: {hint}; stores are s3://bucket/prefix, az://container/prefix, gs://bucket/prefix, file:///folder or a path"
    )]
    Scheme {
        /// What was given.
        uri: String,
        /// What may have been meant.
        hint: String,
    },
    /// The URI is malformed.
    #[error("{uri:?} is not a store: {why}")]
    Malformed {
        /// What was given.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// A folder that is not there and cannot be made, or cannot be entered.
    #[error("cannot use the folder {} as a store; name one that this user can write to", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The cloud's client cannot be set up.
    #[error("cannot set up the client for {uri}; its credentials come from the environment ({variables})")]
    Client {
        /// The store.
        uri: String,
        /// Where the client looks.
        variables: &'static str,
        /// What it said.
        source: object_store::Error,
    },
    /// The last segment is not a run's name.
    #[error("{uri:?} does not end in the name of a run")]
    Run {
        /// What was given.
        uri: String,
        /// Why it cannot be one.
        source: InvalidRunId,
    },
    /// What follows the `@` is not a step.
    #[error("{step:?} in {uri:?} is not a step: write <store>/<run>@<number>, or leave the @ out")]
    Step {
        /// What was given.
        uri: String,
        /// What stands after the `@`.
        step: String,
    },
}

/// What to do about a local folder that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Refuse,
}

impl Store {
    /// Opens a store: `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix` (credentials from the
    /// environment), `file:///folder`, or the path of a folder, which is made if it is not there.
    ///
    /// Nothing is sent: whether a cloud lets us in, [`probe`](Self::probe) tells.
    pub fn open(uri: &str) -> Result<Self, OpenError> {
        Self::open_with(uri, Missing::Make)
    }

    pub(crate) fn open_with(uri: &str, missing: Missing) -> Result<Self, OpenError> {
        match uri.split_once("://") {
            Some(("file", _)) => Self::open_folder(folder_of(uri)?, missing),
            Some((scheme, rest)) => Self::open_bucket(uri, scheme, rest),
            None if uri.is_empty() => Err(malformed(uri, "it is empty")),
            None => {
                let absolute =
                    path::absolute(uri).map_err(|source| OpenError::Folder { path: uri.into(), source })?;
                Self::open_folder(absolute, missing)
            }
        }
    }

    /// A store over any implementation of [`ObjectStore`], under the name `uri`; it must be able to create objects
    /// without overwriting.
    pub fn with_backend(uri: &str, objects: Arc<dyn ObjectStore>) -> Self {
        Self { folder: Folder::new(objects, Path::default(), uri, Patience::default()) }
    }

    /// The same store, asked with other patience.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { folder: self.folder.with_patience(patience) }
    }

    /// The canonical, absolute URI: [`open`](Self::open) of it is this store, from any working directory.
    pub fn uri(&self) -> &str {
        self.folder.uri()
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
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

    fn open_folder(path: PathBuf, missing: Missing) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Folder { path: path.clone(), source };
        if missing == Missing::Make {
            std::fs::create_dir_all(&path).map_err(unusable)?;
        }
        let path = std::fs::canonicalize(&path).map_err(unusable)?;
        let not_a_folder = || unusable(io::ErrorKind::NotADirectory.into());
        if !path.is_dir() {
            return Err(not_a_folder());
        }
        let uri = Url::from_directory_path(&path).map_err(|()| not_a_folder())?;
        // Without fsync a power failure could keep a log entry and lose the packs that it vouches for.
        let objects = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| unusable(io::Error::other(error)))?
            .with_fsync(true);
        Ok(Self::with_backend(uri.as_str().trim_end_matches('/'), Arc::new(objects)))
    }

    fn open_bucket(uri: &str, scheme: &str, rest: &str) -> Result<Self, OpenError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() && ["s3", "az", "gs"].contains(&scheme) {
            return Err(malformed(uri, "the bucket's name is missing after the ://"));
        }
        let prefix = prefix.trim_matches('/');
        let root = Path::parse(prefix).map_err(|error| malformed(uri, &error.to_string()))?;
        let client = |variables| move |source| OpenError::Client { uri: uri.to_owned(), variables, source };
        let objects: Arc<dyn ObjectStore> = match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_client_options(client_options())
                    .with_retry(retries());
                Arc::new(
                    builder
                        .build()
                        .map_err(client("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, …"))?,
                )
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(bucket)
                    .with_client_options(client_options())
                    .with_retry(retries());
                Arc::new(
                    builder
                        .build()
                        .map_err(client("AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, …"))?,
                )
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(bucket)
                    .with_client_options(client_options())
                    .with_retry(retries());
                Arc::new(builder.build().map_err(client("GOOGLE_APPLICATION_CREDENTIALS, …"))?)
            }
            other => return Err(OpenError::Scheme { uri: uri.to_owned(), hint: meant(other) }),
        };
        let slash = if prefix.is_empty() { "" } else { "/" };
        let uri = format!("{scheme}://{bucket}{slash}{prefix}");
        Ok(Self { folder: Folder::new(objects, root, &uri, Patience::default()) })
    }
}

/// The client's own limit on a whole request, 30 s, is too short for a pack on a slow link, and it cannot know how
/// long the body is. [`Patience`] does, and bounds every request.
fn client_options() -> ClientOptions {
    // TLS by ring, which builds everywhere in seconds. That the program has chosen already is no failure.
    rustls::crypto::ring::default_provider().install_default().ok();
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(Duration::from_secs(10))
}

/// A few quick retries by the client, which knows the cloud's ways of saying "slow down"; ours come on top.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() }
}

fn malformed(uri: &str, why: &str) -> OpenError {
    OpenError::Malformed { uri: uri.to_owned(), why: why.to_owned() }
}

fn folder_of(uri: &str) -> Result<PathBuf, OpenError> {
    let absolute = |_| malformed(uri, "write file:///absolute/folder, with three slashes, or just the path");
    let url = Url::parse(uri).map_err(|error| malformed(uri, &error.to_string()))?;
    url.to_file_path().map_err(|()| absolute(()))
}

/// What somebody who wrote `scheme` may have meant.
fn meant(scheme: &str) -> String {
    match scheme.to_ascii_lowercase().as_str() {
        "s3" | "s3a" | "s3n" | "aws" => "for Amazon S3 write s3://".to_owned(),
        "az" | "azure" | "abfs" | "abfss" | "adl" | "wasb" => "for Azure Blob Storage write az://".to_owned(),
        "gs" | "gcs" | "gcp" | "google" => "for Google Cloud Storage write gs://".to_owned(),
        "http" | "https" => "a web address says nothing of how to write there".to_owned(),
        "memory" => "what is only in memory does not outlive the program; use a temporary folder".to_owned(),
        _ => format!("{scheme}:// is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_client_finds_its_tls() {
        // Nothing is sent: making the client is what needs a TLS provider.
        let options = client_options().with_allow_http(true);
        let builder = AmazonS3Builder::new()
            .with_bucket_name("lab")
            .with_region("us-east-1")
            .with_client_options(options);
        assert!(builder.with_access_key_id("id").with_secret_access_key("secret").build().is_ok());
    }
}
