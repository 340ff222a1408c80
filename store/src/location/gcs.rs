//! Google Cloud Storage: the URI `gs://bucket/prefix`, and the client.

use std::{fmt, sync::Arc};

use object_store::{
    ObjectStore,
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key},
    path::Path,
};

use super::{
    connection,
    credentials::CredentialSource,
    environment::Environment,
    error::OpenError,
    uri_parts::{UriParts, slashed},
};
use crate::object::SlowDownConnector;

/// A prefix in a bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GcsLocation {
    pub(super) bucket: String,
    pub(super) prefix: Path,
}

impl GcsLocation {
    /// Reads `gs://bucket/prefix`.
    pub(super) fn parse(uri: &UriParts<'_>) -> Result<Self, OpenError> {
        let bucket = uri.bucket(uri.authority)?;
        uri.no_query("its endpoint and credentials come from the environment (GOOGLE_…)")?;
        Ok(Self { bucket, prefix: uri.prefix(uri.path)? })
    }
}

impl fmt::Display for GcsLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gs://{}{}", self.bucket, slashed(&self.prefix))
    }
}

/// Builds the client. It takes its credentials where `object_store` does: a service account's key or file, application
/// default credentials, a bearer token, or the machine's identity.
pub(super) fn client(
    location: &GcsLocation,
    environment: &Environment,
) -> Result<(Arc<dyn ObjectStore>, CredentialSource), OpenError> {
    let key = environment.get("GOOGLE_SERVICE_ACCOUNT_KEY");
    let in_key = key
        .and_then(|key| serde_json::from_str::<serde_json::Value>(key).ok())
        .and_then(|key| key.get("gcs_base_url")?.as_str().map(str::to_owned));
    let endpoint = environment.get("GOOGLE_BASE_URL").map(str::to_owned).or(in_key);
    let channel = connection::channel(location, endpoint.as_deref(), environment, "GOOGLE_ALLOW_HTTP")?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(connection::options(channel))
        .with_http_connector(SlowDownConnector::default())
        .with_retry(connection::retries());
    if let Some(path) = environment.get("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    for (name, value) in environment.options("GOOGLE_") {
        if let Ok(key) = name.parse::<Key>() {
            builder = builder.with_config(key, value);
        }
    }
    let client = builder.with_bucket_name(&location.bucket).build().map_err(|error| OpenError::Client {
        uri: location.to_string(),
        looked_in: "GOOGLE_SERVICE_ACCOUNT_KEY, GOOGLE_SERVICE_ACCOUNT, GOOGLE_APPLICATION_CREDENTIALS, what `gcloud auth application-default login` left, or the machine",
        source: error,
    })?;
    let named = [
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_BEARER_TOKEN",
    ];
    let source = match named.into_iter().find(|name| environment.get(name).is_some()) {
        Some(variable) => CredentialSource::Environment(variable),
        None => CredentialSource::Machine,
    };
    Ok((Arc::new(client), source))
}
