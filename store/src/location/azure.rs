//! Azure Blob Storage: its three forms of URI, and the client.

use std::{fmt, sync::Arc};

use object_store::{
    ObjectStore,
    azure::{AzureConfigKey as Key, MicrosoftAzureBuilder},
    path::Path,
};

use super::{
    connection,
    credentials::CredentialSource,
    environment::Environment,
    error::OpenError,
    uri_parts::{UriParts, is_azure, malformed, slashed},
};
use crate::object::SlowDownConnector;

/// A prefix in a container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AzureLocation {
    pub(super) container: String,
    pub(super) prefix: Path,
    /// The host of the account's blobs, `account.blob.core.windows.net`. The environment names the account if it is absent.
    pub(super) host: Option<String>,
}

/// What to do with the options that another tool puts after the `?`.
const INSTEAD_OF_QUERY: &str = "a SAS belongs in AZURE_STORAGE_SAS_TOKEN";

impl AzureLocation {
    /// Reads `az://container/prefix` and `abfss://container@account.dfs.core.windows.net/prefix`.
    pub(super) fn parse(uri: &UriParts<'_>) -> Result<Self, OpenError> {
        uri.no_query(INSTEAD_OF_QUERY)?;
        let (container, host) = match uri.authority.split_once('@') {
            Some((container, host)) if is_azure(host) => (container, Some(blob_host(host))),
            Some(_) => {
                let why = "behind the @ belongs a host like account.dfs.core.windows.net";
                return Err(malformed(uri.uri, why));
            }
            None => (uri.authority, None),
        };
        Ok(Self { container: uri.bucket(container)?, prefix: uri.prefix(uri.path)?, host })
    }

    /// Reads `https://account.blob.core.windows.net/container/prefix`.
    pub(super) fn parse_https(uri: &UriParts<'_>) -> Result<Self, OpenError> {
        uri.no_query(INSTEAD_OF_QUERY)?;
        let (container, prefix) = uri.path.split_once('/').unwrap_or((uri.path, ""));
        let host = Some(blob_host(uri.authority));
        Ok(Self { container: uri.bucket(container)?, prefix: uri.prefix(prefix)?, host })
    }
}

/// The host of an account's blobs, by that of its blobs or of its Data Lake.
fn blob_host(host: &str) -> String {
    host.replacen(".dfs.", ".blob.", 1)
}

impl fmt::Display for AzureLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, "az://{}{}", self.container, slashed(&self.prefix)),
            Some(host) => write!(f, "https://{host}/{}{}", self.container, slashed(&self.prefix)),
        }
    }
}

/// Builds the client.
///
/// It takes all settings that `object_store` knows (account key, SAS, client secret, workload identity, managed identity),
/// under those names and under those of Azure's own command line: `AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_KEY` and
/// `AZURE_STORAGE_CONNECTION_STRING`.
pub(super) fn client(
    location: &AzureLocation,
    environment: &Environment,
) -> Result<(Arc<dyn ObjectStore>, CredentialSource), OpenError> {
    let mut settings: Vec<(Key, String)> = Vec::new();
    if let Some(text) = environment.get("AZURE_STORAGE_CONNECTION_STRING") {
        settings.extend(connection_string(text));
    }
    let named = [
        ("AZURE_STORAGE_ACCOUNT", Key::AccountName),
        ("AZURE_STORAGE_KEY", Key::AccessKey),
        ("IDENTITY_ENDPOINT", Key::MsiEndpoint),
    ];
    settings
        .extend(named.into_iter().filter_map(|(name, key)| Some((key, environment.get(name)?.to_owned()))));
    settings.extend(
        environment
            .options("AZURE_")
            .filter_map(|(name, value)| Some((name.parse().ok()?, value.to_owned()))),
    );
    if let Some(host) = &location.host {
        settings.retain(|(key, _)| !matches!(key, Key::Endpoint | Key::UseEmulator | Key::UseFabricEndpoint));
        settings.push((Key::AccountName, host.split('.').next().unwrap_or_default().to_owned()));
        settings.push((Key::Endpoint, format!("https://{host}")));
    }

    let endpoint =
        settings.iter().rev().find(|(key, _)| *key == Key::Endpoint).map(|(_, value)| value.as_str());
    let channel = connection::channel(location, endpoint, environment, "AZURE_ALLOW_HTTP")?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(connection::options(channel))
        .with_http_connector(SlowDownConnector::default())
        .with_retry(connection::retries());
    let source = source_of(&settings);
    for (key, value) in settings {
        builder = builder.with_config(key, value);
    }
    let client = builder.with_container_name(&location.container).build().map_err(|error| OpenError::Client {
        uri: location.to_string(),
        looked_in: "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, a workload identity or the machine's managed identity",
        source: error,
    })?;
    Ok((Arc::new(client), source))
}

/// The source that the client will take credentials from, by its settings.
fn source_of(settings: &[(Key, String)]) -> CredentialSource {
    let has = |wanted: Key| settings.iter().any(|(key, _)| *key == wanted);
    let sources = [
        (has(Key::Token), "AZURE_STORAGE_TOKEN"),
        (has(Key::AccessKey), "AZURE_STORAGE_ACCOUNT_KEY"),
        (has(Key::FederatedTokenFile), "AZURE_FEDERATED_TOKEN_FILE"),
        (has(Key::ClientSecret), "AZURE_CLIENT_SECRET"),
        (has(Key::SasKey), "AZURE_STORAGE_SAS_TOKEN"),
        (has(Key::UseAzureCli), "AZURE_USE_AZURE_CLI"),
    ];
    match sources.into_iter().find(|(has, _)| *has) {
        Some((_, variable)) => CredentialSource::Environment(variable),
        None if has(Key::UseEmulator) || has(Key::SkipSignature) => CredentialSource::Unknown,
        None => CredentialSource::Machine,
    }
}

/// The settings in a connection string, e.g. `AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net`.
fn connection_string(text: &str) -> Vec<(Key, String)> {
    let part = |wanted: &str| {
        let parts = text.split(';').filter_map(|part| part.trim().split_once('='));
        parts.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    let endpoint = part("BlobEndpoint").or_else(|| {
        let protocol = part("DefaultEndpointsProtocol").unwrap_or_else(|| "https".to_owned());
        Some(format!("{protocol}://{}.blob.{}", part("AccountName")?, part("EndpointSuffix")?))
    });
    // A connection string with a SAS names the account only in its endpoint.
    let account = part("AccountName").or_else(|| {
        let host = endpoint.as_deref()?.split_once("://")?.1;
        host.split(['.', '/', ':']).next().map(str::to_owned)
    });
    let settings = [
        (Key::AccountName, account),
        (Key::AccessKey, part("AccountKey")),
        (Key::SasKey, part("SharedAccessSignature")),
        (Key::Endpoint, endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned())),
    ];
    settings.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_read_in_the_forms_that_azure_writes() {
        let portal = "DefaultEndpointsProtocol=https;AccountName=lab;AccountKey=a2V5==;EndpointSuffix=core.windows.net";
        assert_eq!(
            connection_string(portal),
            [
                (Key::AccountName, "lab".to_owned()),
                (Key::AccessKey, "a2V5==".to_owned()),
                (Key::Endpoint, "https://lab.blob.core.windows.net".to_owned()),
            ]
        );
        let sas = "BlobEndpoint=https://lab.blob.core.windows.net/;SharedAccessSignature=sv=2022&sig=x%3D";
        assert_eq!(
            connection_string(sas),
            [
                (Key::AccountName, "lab".to_owned()),
                (Key::SasKey, "sv=2022&sig=x%3D".to_owned()),
                (Key::Endpoint, "https://lab.blob.core.windows.net".to_owned()),
            ]
        );
    }
}
