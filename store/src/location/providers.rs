//! Which provider a store's URI belongs to: one variant of [`Location`] for each.

use std::{
    fmt,
    path::{self, PathBuf},
    sync::Arc,
};

use object_store::{ObjectStore, path::Path};

use super::{
    azure::{self, AzureLocation},
    credentials::CredentialSource,
    environment::Environment,
    error::OpenError,
    folder,
    gcs::{self, GcsLocation},
    s3::{self, S3Location},
    uri_parts::{UriParts, is_azure, malformed, redacted},
};

/// Where a store is. Two locations are equal if their canonical URIs, which [`Display`](fmt::Display) writes, are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    S3(S3Location),
    Azure(AzureLocation),
    Gcs(GcsLocation),
    /// A local folder, by its absolute path.
    Folder(PathBuf),
    /// An implementation of [`ObjectStore`] that the caller made, by the name that the caller gave it.
    Other(String),
}

impl Location {
    /// Reads a URI or a path. Nothing is looked up.
    pub(crate) fn parse(uri: &str) -> Result<Self, OpenError> {
        let Some(parts) = UriParts::of(uri) else {
            if uri.is_empty() {
                return Err(malformed(uri, "it is empty"));
            }
            let absolute = path::absolute(uri);
            return absolute
                .map(Self::Folder)
                .map_err(|source| OpenError::Folder { path: uri.into(), source });
        };
        match parts.scheme {
            "file" => folder::path_of(uri).map(Self::Folder),
            "s3" => S3Location::parse(&parts).map(Self::S3),
            "az" | "abfs" | "abfss" => AzureLocation::parse(&parts).map(Self::Azure),
            "https" if is_azure(parts.authority) => AzureLocation::parse_https(&parts).map(Self::Azure),
            "gs" => GcsLocation::parse(&parts).map(Self::Gcs),
            other => Err(OpenError::Scheme { uri: redacted(uri), hint: hint_for(other) }),
        }
    }

    /// The prefix of all its objects.
    pub(crate) fn prefix(&self) -> Path {
        match self {
            Self::S3(s3) => s3.prefix.clone(),
            Self::Azure(azure) => azure.prefix.clone(),
            Self::Gcs(gcs) => gcs.prefix.clone(),
            Self::Folder(_) | Self::Other(_) => Path::default(),
        }
    }

    /// The client of a cloud's store, and the source of its credentials. Folders and others have none.
    pub(crate) fn client(
        &self,
        environment: &Environment,
    ) -> Result<(Arc<dyn ObjectStore>, CredentialSource), OpenError> {
        match self {
            Self::S3(s3) => s3::client(s3, environment),
            Self::Azure(azure) => azure::client(azure, environment),
            Self::Gcs(gcs) => gcs::client(gcs, environment),
            Self::Folder(_) | Self::Other(_) => {
                Err(malformed(&self.to_string(), "there is no client for it"))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(s3) => s3.fmt(f),
            Self::Azure(azure) => azure.fmt(f),
            Self::Gcs(gcs) => gcs.fmt(f),
            Self::Folder(path) => match crate::uri::of_folder(path) {
                Some(uri) => f.write_str(&uri),
                None => write!(f, "{}", path.display()),
            },
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// What the user who wrote `scheme` may have meant.
fn hint_for(scheme: &str) -> String {
    match scheme.to_ascii_lowercase().as_str() {
        "s3" | "s3a" | "s3n" | "aws" => "for Amazon S3 write s3://".to_owned(),
        "az" | "azure" | "abfs" | "abfss" | "adl" | "wasb" | "wasbs" => {
            "for Azure Blob Storage write az://".to_owned()
        }
        "gs" | "gcs" | "gcp" | "google" => "for Google Cloud Storage write gs://".to_owned(),
        "http" | "https" => {
            "a web address does not say how to write there; for a server that speaks S3 write s3://bucket/prefix?endpoint=https://…"
                .to_owned()
        }
        "memory" => "a store that is only in memory does not outlive the program; use a temporary folder".to_owned(),
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
    fn a_step_after_the_options_is_refused() {
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
