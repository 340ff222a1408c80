//! The parts of a store's URI that several providers share, and the errors of parsing them.

use object_store::path::Path;

use super::error::OpenError;

/// A URI split at its scheme. The path has no slash at its start; a missing part is empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct UriParts<'a> {
    /// The whole text, for errors.
    pub(super) uri: &'a str,
    pub(super) scheme: &'a str,
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> UriParts<'a> {
    /// Splits a URI; `None` if it has no scheme.
    pub(super) fn of(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        Some(Self { uri, scheme, authority, path, query })
    }

    /// The name of a bucket or container.
    pub(super) fn bucket(&self, name: &str) -> Result<String, OpenError> {
        match name {
            "" => Err(malformed(self.uri, "the bucket's name is missing after the ://")),
            name if name.contains(['@', ':']) => Err(malformed(
                self.uri,
                "a bucket's name has no @ and no colon; secrets belong in the environment",
            )),
            name => Ok(name.to_owned()),
        }
    }

    /// The prefix of all objects of the store.
    pub(super) fn prefix(&self, path: &str) -> Result<Path, OpenError> {
        Path::parse(path.trim_matches('/')).map_err(|error| malformed(self.uri, &error.to_string()))
    }

    /// Refuses options, and says what to use instead.
    pub(super) fn no_query(&self, instead: &str) -> Result<(), OpenError> {
        match self.query {
            "" => Ok(()),
            _ => Err(malformed(self.uri, &format!("nothing may stand behind a question mark: {instead}"))),
        }
    }
}

/// The error of a URI that is malformed.
pub(super) fn malformed(uri: &str, why: &str) -> OpenError {
    OpenError::Malformed { uri: redacted(uri), why: why.to_owned() }
}

/// A prefix as it stands in a URI, after the bucket.
pub(super) fn slashed(prefix: &Path) -> String {
    if prefix.as_ref().is_empty() { String::new() } else { format!("/{prefix}") }
}

/// A URI as errors show it: without its options, and without what stands before an `@` where a user's name would be.
/// Either may be a secret that the user put there by mistake.
pub(crate) fn redacted(uri: &str) -> String {
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

/// Whether a host serves an account's blobs, in any of Azure's clouds.
pub(super) fn is_azure(host: &str) -> bool {
    let service = host.split_once('.').map_or("", |(_, service)| service);
    ["blob.core.", "dfs.core.", "blob.fabric.", "dfs.fabric."].iter().any(|start| service.starts_with(start))
}
