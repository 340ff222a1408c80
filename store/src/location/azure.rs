//! The client for Azure Blob Storage.

use std::sync::Arc;

use object_store::{
    ObjectStore,
    azure::{AzureConfigKey as Key, MicrosoftAzureBuilder},
};

use super::{AzureLocation, CredentialSource, Environment, Location, OpenError, connection};
use crate::object::slow_down;

/// Builds the client.
///
/// It takes all that `object_store` knows (account key, SAS, client secret, workload identity, managed identity), under
/// those names and under those of Azure's own command line: `AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_KEY` and
/// `AZURE_STORAGE_CONNECTION_STRING`.
pub(super) fn client(
    place: &AzureLocation,
    environment: &Environment,
) -> Result<(Arc<dyn ObjectStore>, CredentialSource), OpenError> {
    let whole = Location::Azure(place.clone());
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
    if let Some(host) = &place.host {
        settings.retain(|(key, _)| !matches!(key, Key::Endpoint | Key::UseEmulator | Key::UseFabricEndpoint));
        settings.push((Key::AccountName, host.split('.').next().unwrap_or_default().to_owned()));
        settings.push((Key::Endpoint, format!("https://{host}")));
    }

    let endpoint =
        settings.iter().rev().find(|(key, _)| *key == Key::Endpoint).map(|(_, value)| value.as_str());
    let channel = connection::channel(&whole, endpoint, environment, "AZURE_ALLOW_HTTP")?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(connection::options(channel))
        .with_http_connector(slow_down::Listening::default())
        .with_retry(connection::retries());
    let source = source_of(&settings);
    for (key, value) in settings {
        builder = builder.with_config(key, value);
    }
    let client = builder.with_container_name(&place.container).build().map_err(|error| OpenError::Client {
        uri: whole.to_string(),
        looked_in: "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, a workload identity or the machine's managed identity",
        source: error,
    })?;
    Ok((Arc::new(client), source))
}

/// The way that the client will take, of those that the settings leave open.
fn source_of(settings: &[(Key, String)]) -> CredentialSource {
    let has = |wanted: Key| settings.iter().any(|(key, _)| *key == wanted);
    let ways = [
        (has(Key::Token), "AZURE_STORAGE_TOKEN"),
        (has(Key::AccessKey), "AZURE_STORAGE_ACCOUNT_KEY"),
        (has(Key::FederatedTokenFile), "AZURE_FEDERATED_TOKEN_FILE"),
        (has(Key::ClientSecret), "AZURE_CLIENT_SECRET"),
        (has(Key::SasKey), "AZURE_STORAGE_SAS_TOKEN"),
        (has(Key::UseAzureCli), "AZURE_USE_AZURE_CLI"),
    ];
    match ways.into_iter().find(|(has, _)| *has) {
        Some((_, variable)) => CredentialSource::Environment(variable),
        None if has(Key::UseEmulator) || has(Key::SkipSignature) => CredentialSource::Unknown,
        None => CredentialSource::Machine,
    }
}

/// What a connection string says: `AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net`, for one.
fn connection_string(text: &str) -> Vec<(Key, String)> {
    let part = |wanted: &str| {
        let parts = text.split(';').filter_map(|part| part.trim().split_once('='));
        parts.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    let endpoint = part("BlobEndpoint").or_else(|| {
        let protocol = part("DefaultEndpointsProtocol").unwrap_or_else(|| "https".to_owned());
        Some(format!("{protocol}://{}.blob.{}", part("AccountName")?, part("EndpointSuffix")?))
    });
    // A connection string of a SAS names no account but in its endpoint.
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
    fn connection_strings_are_read_as_azure_writes_them() {
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
