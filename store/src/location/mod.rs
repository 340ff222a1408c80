//! Where a store is, as its URI says, and the client that reaches it.
//!
//! | URI | is |
//! | --- | --- |
//! | `s3://bucket/prefix?endpoint=…&region=…&profile=…` | S3 and what speaks it; what stands behind the `?` may be left out |
//! | `az://container/prefix` | Azure Blob Storage; the account comes from the environment |
//! | `https://account.blob.core.windows.net/container/prefix` | the same with its account |
//! | `abfss://container@account.dfs.core.windows.net/prefix` | the same, as Hadoop writes it |
//! | `gs://bucket/prefix` | Google Cloud Storage |
//! | `file:///folder`, or a path | a folder |
//!
//! A URI holds no secret: credentials come from where each cloud's own tools find them, by way of the [`Environment`].

mod azure;
mod connection;
pub mod cost;
mod environment;
mod gcs;
pub mod probe;
mod profile;
pub mod refusal;
mod s3;
pub mod shell;
pub mod store;
pub mod uri;

use std::{
    fmt, io,
    path::{self, PathBuf},
    sync::Arc,
};

use object_store::{ObjectStore, path::Path};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;
use whimbrel_plan::InvalidRunId;

pub use environment::Environment;
pub(crate) use s3::CredentialSource;

/// Where a store is. Two are equal if their canonical URIs, which [`Display`](fmt::Display) writes, are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    S3(S3Location),
    Azure(AzureLocation),
    Gcs(GcsLocation),
    /// A folder, by its absolute path.
    Folder(PathBuf),
    /// What a program made itself, by the name that it gave it.
    Other(String),
}

/// A prefix in a bucket of S3 or of what speaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Location {
    pub(crate) bucket: String,
    pub(crate) prefix: Path,
    /// Where it is, if that is not Amazon.
    pub(crate) endpoint: Option<Url>,
    pub(crate) region: Option<String>,
    /// The profile of AWS's shared files whose credentials are meant.
    pub(crate) profile: Option<String>,
}

/// A prefix in a container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AzureLocation {
    pub(crate) container: String,
    pub(crate) prefix: Path,
    /// The host of the account's blobs, `account.blob.core.windows.net`; from the environment if it is not there.
    pub(crate) host: Option<String>,
}

/// A prefix in a bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GcsLocation {
    pub(crate) bucket: String,
    pub(crate) prefix: Path,
}

/// A store, or a run in it, that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No kind of store goes by the scheme.
    #[error(
        "{uri:?} is not a store: {hint}; stores are s3://bucket/prefix, az://container/prefix, gs://bucket/prefix, file:///folder or a path"
    )]
    Scheme {
        /// What was given, without what may be secret.
        uri: String,
        /// What may have been meant.
        hint: String,
    },
    /// The URI is malformed.
    #[error("{uri:?} is not a store: {why}")]
    Malformed {
        /// What was given, without what may be secret.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// A folder that is not there and cannot be made, or cannot be entered.
    #[error("cannot use the folder {} as a store; name one that this user can read and write", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The cloud's client cannot be set up.
    #[error("cannot set up the client for {uri}; it takes its credentials from {looked_in}")]
    Client {
        /// The store.
        uri: String,
        /// Where the client looks.
        looked_in: &'static str,
        /// What it said.
        source: object_store::Error,
    },
    /// The shared files of AWS's tools do not give the credentials.
    #[error("cannot get credentials for {uri}: {why}")]
    Credentials {
        /// The store.
        uri: String,
        /// What is missing, and what to do.
        why: String,
    },
    /// The store would be reached without encryption, over a network.
    #[error(
        "{uri} would be reached at {endpoint} in clear text, credentials and data alike; give an https:// endpoint, or allow it with {variable}=true in the environment"
    )]
    ClearText {
        /// The store.
        uri: String,
        /// Its endpoint.
        endpoint: String,
        /// The variable that allows it.
        variable: &'static str,
    },
    /// The last segment is not a run's name.
    #[error("{uri:?} does not end in the name of a run")]
    Run {
        /// What was given, without what may be secret.
        uri: String,
        /// Why it cannot be one.
        source: InvalidRunId,
    },
    /// What follows the `@` is not a step.
    #[error("{step:?} in {uri:?} is not a step: write <store>/<run>@<number>, or leave the @ out")]
    Step {
        /// What was given, without what may be secret.
        uri: String,
        /// What stands after the `@`.
        step: String,
    },
}

/// What would end a query's value, or be read otherwise.
const IN_QUERY: &AsciiSet =
    &CONTROLS.add(b' ').add(b'%').add(b'&').add(b'+').add(b'#').add(b'"').add(b'<').add(b'>');

impl Location {
    /// Reads a URI or a path. Nothing is looked up.
    pub(crate) fn parse(uri: &str) -> Result<Self, OpenError> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            if uri.is_empty() {
                return Err(malformed(uri, "it is empty"));
            }
            let absolute = path::absolute(uri);
            return absolute
                .map(Self::Folder)
                .map_err(|source| OpenError::Folder { path: uri.into(), source });
        };
        if scheme == "file" {
            return folder_of(uri).map(Self::Folder);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "s3" => s3_place(uri, authority, path, query).map(Self::S3),
            "az" | "abfs" | "abfss" => azure_place(uri, authority, path, query).map(Self::Azure),
            "https" if is_azure(authority) => account_place(uri, authority, path, query).map(Self::Azure),
            "gs" => {
                let bucket = bucket_of(uri, authority)?;
                no_query(uri, query, "its endpoint and credentials come from the environment (GOOGLE_…)")?;
                Ok(Self::Gcs(GcsLocation { bucket, prefix: prefix_of(uri, path)? }))
            }
            other => Err(OpenError::Scheme { uri: without_secrets(uri), hint: meant(other) }),
        }
    }

    /// The prefix of all its objects.
    pub(crate) fn prefix(&self) -> Path {
        match self {
            Self::S3(place) => place.prefix.clone(),
            Self::Azure(place) => place.prefix.clone(),
            Self::Gcs(place) => place.prefix.clone(),
            Self::Folder(_) | Self::Other(_) => Path::default(),
        }
    }

    /// The client that reaches it, and where its credentials come from if that is known. For a cloud: folders have
    /// none.
    pub(crate) fn client(
        &self,
        environment: &Environment,
    ) -> Result<(Arc<dyn ObjectStore>, CredentialSource), OpenError> {
        match self {
            Self::S3(place) => s3::client(place, environment),
            Self::Azure(place) => azure::client(place, environment),
            Self::Gcs(place) => gcs::client(place, environment),
            Self::Folder(_) | Self::Other(_) => {
                Err(malformed(&self.to_string(), "there is no client for it"))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slashed =
            |prefix: &Path| if prefix.as_ref().is_empty() { String::new() } else { format!("/{prefix}") };
        match self {
            Self::S3(S3Location { bucket, prefix, endpoint, region, profile }) => {
                write!(f, "s3://{bucket}{}", slashed(prefix))?;
                let endpoint = endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/'));
                let options =
                    [("endpoint", endpoint), ("region", region.as_deref()), ("profile", profile.as_deref())];
                let given = options.into_iter().filter_map(|(key, value)| Some((key, value?)));
                for (number, (key, value)) in given.enumerate() {
                    let mark = if number == 0 { '?' } else { '&' };
                    write!(f, "{mark}{key}={}", utf8_percent_encode(value, IN_QUERY))?;
                }
                Ok(())
            }
            Self::Azure(AzureLocation { container, prefix, host: None }) => {
                write!(f, "az://{container}{}", slashed(prefix))
            }
            Self::Azure(AzureLocation { container, prefix, host: Some(host) }) => {
                write!(f, "https://{host}/{container}{}", slashed(prefix))
            }
            Self::Gcs(GcsLocation { bucket, prefix }) => write!(f, "gs://{bucket}{}", slashed(prefix)),
            Self::Folder(path) => match uri::of_folder(path) {
                Some(folder) => f.write_str(&folder),
                None => write!(f, "{}", path.display()),
            },
            Self::Other(name) => f.write_str(name),
        }
    }
}

fn s3_place(uri: &str, authority: &str, path: &str, query: &str) -> Result<S3Location, OpenError> {
    let bucket = bucket_of(uri, authority)?;
    let (mut endpoint, mut region, mut profile) = (None, None, None);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        if is_step(&value) {
            let why = "a step stands before the options: s3://bucket/prefix/RUN@STEP?endpoint=…";
            return Err(malformed(uri, why));
        }
        match key.as_ref() {
            "endpoint" => endpoint = Some(endpoint_of(uri, &value)?),
            "region" => region = Some(value),
            "profile" => profile = Some(value),
            other => {
                let why = format!(
                    "{other:?} is no option of s3://: it has endpoint, region and profile; secrets belong in the environment"
                );
                return Err(malformed(uri, &why));
            }
        }
    }
    Ok(S3Location { bucket, prefix: prefix_of(uri, path)?, endpoint, region, profile })
}

/// Whether an option ends like the name of a checkpoint.
fn is_step(value: &str) -> bool {
    value.rsplit_once('@').is_some_and(|(_, step)| step.parse::<u64>().is_ok())
}

fn endpoint_of(uri: &str, value: &str) -> Result<Url, OpenError> {
    let wrong = || malformed(uri, "its endpoint is not a web address; write endpoint=https://host:port");
    let url = Url::parse(value).map_err(|_| wrong())?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(malformed(
            uri,
            "its endpoint holds more than a host and a path; secrets belong in the environment",
        ));
    }
    Ok(url)
}

/// `container/prefix`, or `container@account.dfs.core.windows.net/prefix`.
fn azure_place(uri: &str, authority: &str, path: &str, query: &str) -> Result<AzureLocation, OpenError> {
    no_query(uri, query, "a SAS belongs in AZURE_STORAGE_SAS_TOKEN")?;
    let (container, host) = match authority.split_once('@') {
        Some((container, host)) if is_azure(host) => (container, Some(host.replacen(".dfs.", ".blob.", 1))),
        Some(_) => {
            return Err(malformed(uri, "behind the @ belongs a host like account.dfs.core.windows.net"));
        }
        None => (authority, None),
    };
    Ok(AzureLocation { container: bucket_of(uri, container)?, prefix: prefix_of(uri, path)?, host })
}

/// `account.blob.core.windows.net/container/prefix`.
fn account_place(uri: &str, host: &str, path: &str, query: &str) -> Result<AzureLocation, OpenError> {
    no_query(uri, query, "a SAS belongs in AZURE_STORAGE_SAS_TOKEN")?;
    let (container, prefix) = path.split_once('/').unwrap_or((path, ""));
    let host = Some(host.replacen(".dfs.", ".blob.", 1));
    Ok(AzureLocation { container: bucket_of(uri, container)?, prefix: prefix_of(uri, prefix)?, host })
}

/// Whether a host is that of an account's blobs, in whichever of Azure's clouds.
fn is_azure(host: &str) -> bool {
    let service = host.split_once('.').map_or("", |(_, service)| service);
    ["blob.core.", "dfs.core.", "blob.fabric.", "dfs.fabric."].iter().any(|start| service.starts_with(start))
}

fn bucket_of(uri: &str, authority: &str) -> Result<String, OpenError> {
    match authority {
        "" => Err(malformed(uri, "the bucket's name is missing after the ://")),
        name if name.contains(['@', ':']) => {
            Err(malformed(uri, "a bucket's name has no @ and no colon; secrets belong in the environment"))
        }
        name => Ok(name.to_owned()),
    }
}

fn prefix_of(uri: &str, path: &str) -> Result<Path, OpenError> {
    Path::parse(path.trim_matches('/')).map_err(|error| malformed(uri, &error.to_string()))
}

fn no_query(uri: &str, query: &str, instead: &str) -> Result<(), OpenError> {
    match query {
        "" => Ok(()),
        _ => Err(malformed(uri, &format!("nothing may stand behind a question mark: {instead}"))),
    }
}

fn malformed(uri: &str, why: &str) -> OpenError {
    OpenError::Malformed { uri: without_secrets(uri), why: why.to_owned() }
}

/// A URI as errors show it. What stands behind a `?`, or before an `@` where a user's name would be, may be a secret
/// that somebody thought belongs there.
pub(crate) fn without_secrets(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://").filter(|(scheme, _)| *scheme != "file") else {
        return uri.to_owned();
    };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?…"));
    let (authority, path) =
        rest.split_once('/').map_or((rest, String::new()), |(a, path)| (a, format!("/{path}")));
    let authority = match authority.split_once('@') {
        Some((user, host)) if user.contains(':') || !is_azure(host) => format!("…@{host}"),
        _ => authority.to_owned(),
    };
    format!("{scheme}://{authority}{path}{query}")
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
        "az" | "azure" | "abfs" | "abfss" | "adl" | "wasb" | "wasbs" => {
            "for Azure Blob Storage write az://".to_owned()
        }
        "gs" | "gcs" | "gcp" | "google" => "for Google Cloud Storage write gs://".to_owned(),
        "http" | "https" => {
            "a web address says nothing of how to write there; for a server that speaks S3 write s3://bucket/prefix?endpoint=https://…"
                .to_owned()
        }
        "memory" => "what is only in memory does not outlive the program; use a temporary folder".to_owned(),
        _ => format!("{scheme}:// is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(uri: &str) -> String {
        Location::parse(uri).unwrap().to_string()
    }

    #[test]
    fn a_uri_has_one_canonical_form_and_that_form_is_itself() {
        let cases = [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            (
                "s3://bucket/a?region=eu-west-1&endpoint=http%3A%2F%2F127.0.0.1%3A9000%2F",
                "s3://bucket/a?endpoint=http://127.0.0.1:9000&region=eu-west-1",
            ),
            ("s3://bucket?profile=my+lab", "s3://bucket?profile=my%20lab"),
            ("az://container/a", "az://container/a"),
            ("abfss://container@lab.dfs.core.windows.net/a", "https://lab.blob.core.windows.net/container/a"),
            (
                "https://lab.blob.core.windows.net/container/a/b",
                "https://lab.blob.core.windows.net/container/a/b",
            ),
            (
                "https://lab.blob.core.chinacloudapi.cn/container",
                "https://lab.blob.core.chinacloudapi.cn/container",
            ),
            ("gs://bucket/a", "gs://bucket/a"),
            ("/a b/c", "file:///a%20b/c"),
        ];
        for (uri, expected) in cases {
            assert_eq!(canonical(uri), expected);
            assert_eq!(canonical(expected), expected);
        }
    }

    #[test]
    fn a_step_behind_the_options_is_refused() {
        for uri in ["s3://b/r?region=eu-west-1@7", "s3://b/r?endpoint=http://127.0.0.1:9000@7"] {
            let error = Location::parse(uri).unwrap_err().to_string();
            assert!(error.contains("RUN@STEP?endpoint"), "{error}");
        }
        assert!(Location::parse("s3://b/r?profile=me@lab").is_ok());
    }

    #[test]
    fn a_secret_in_a_uri_is_refused_and_not_repeated() {
        for uri in [
            "s3://AKIA:hunter2@bucket/runs",
            "s3://bucket/runs?secret_access_key=hunter2",
            "s3://bucket/runs?endpoint=https://user:hunter2@host",
            "az://container/runs?sv=2020&sig=hunter2",
            "https://lab.blob.core.windows.net/container?sig=hunter2",
            "gs://token:hunter2@bucket",
            "https://user:hunter2@example.com/x",
            "abfss://container:hunter2@lab.dfs.core.windows.net/x",
        ] {
            let error = Location::parse(uri).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
