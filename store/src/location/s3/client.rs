//! The client for S3: which credentials, region and endpoint it gets.

use std::sync::Arc;

use object_store::{
    ObjectStore,
    aws::{AmazonS3Builder, AmazonS3ConfigKey as Key},
};

use super::{
    super::{
        connection::{self, Channel},
        credentials::CredentialSource,
        environment::Environment,
        error::OpenError,
    },
    S3Location,
    profile::{Profile, Wanted},
};
use crate::object::SlowDownConnector;

/// Where the client may find credentials.
const LOOKED_IN: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, a web identity, the container or the machine";

/// Builds the client; see [`builder`] for its settings.
pub(in crate::location) fn client(
    location: &S3Location,
    environment: &Environment,
) -> Result<(Arc<dyn ObjectStore>, CredentialSource), OpenError> {
    let (builder, source) = builder(location, environment)?;
    let client = builder.build().map_err(|error| OpenError::Client {
        uri: location.to_string(),
        looked_in: LOOKED_IN,
        source: error,
    })?;
    Ok((Arc::new(client), source))
}

/// The settings of the client.
///
/// | setting | first found of |
/// | --- | --- |
/// | credentials | the URI's profile; the environment; the profile that `AWS_PROFILE` names, or `default`; the container or the machine |
/// | region, endpoint | the URI; the URI's profile; the environment; the profile |
fn builder(
    location: &S3Location,
    environment: &Environment,
) -> Result<(AmazonS3Builder, CredentialSource), OpenError> {
    let (profile, source) = profile_and_source(location, environment)
        .map_err(|why| OpenError::Credentials { uri: location.to_string(), why })?;
    let first_of = |given: Option<String>, in_profile: &Option<String>, variables: &[&str]| {
        given
            .or_else(|| in_profile.clone().filter(|_| location.profile.is_some()))
            .or_else(|| environment.first(variables).map(str::to_owned))
            .or_else(|| in_profile.clone())
    };
    let endpoint = location.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let endpoint = first_of(endpoint, &profile.endpoint, &variables);
    let region = first_of(location.region.clone(), &profile.region, &["AWS_REGION", "AWS_DEFAULT_REGION"]);

    let channel = connection::channel(location, endpoint.as_deref(), environment, "AWS_ALLOW_HTTP")?;
    let mut builder = AmazonS3Builder::new()
        .with_client_options(connection::options(channel))
        .with_http_connector(SlowDownConnector::default())
        .with_retry(connection::retries())
        // A signature over the body costs a SHA-256 of every pack, which takes as long as the put itself on a fast link.
        // TLS protects the body in transit, and each read is compared with a BLAKE3 hash. Without TLS the body is signed.
        .with_unsigned_payload(channel != Channel::ClearText);
    for (name, value) in environment.options("AWS_") {
        let Ok(key) = name.parse::<Key>() else { continue };
        let is_credential = matches!(key, Key::AccessKeyId | Key::SecretAccessKey | Key::Token);
        if !(is_credential && location.profile.is_some()) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(keys) = profile.keys {
        builder = builder.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
        if let Some(token) = keys.token {
            builder = builder.with_token(token);
        }
    }
    if let Some(endpoint) = endpoint {
        // This key takes precedence over the other endpoint settings in the environment.
        builder = builder.with_config(Key::S3Endpoint, endpoint);
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    Ok((builder.with_bucket_name(&location.bucket), source))
}

/// The profile that counts, and where the credentials come from. The error says what is missing, and what to do.
fn profile_and_source(
    location: &S3Location,
    environment: &Environment,
) -> Result<(Profile, CredentialSource), String> {
    let has_keys = environment.first(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]).is_some();
    match (&location.profile, environment.get("AWS_PROFILE")) {
        (Some(name), _) => {
            Ok((Profile::read(name, Wanted::Named, environment)?, CredentialSource::Profile(name.clone())))
        }
        _ if has_keys => {
            // The profile's region and endpoint count even so. That the profile has no keys is no error here.
            let name = environment.get("AWS_PROFILE").unwrap_or("default");
            let profile = Profile::read(name, Wanted::ByDefault, environment).unwrap_or_default();
            let source = CredentialSource::Environment("AWS_ACCESS_KEY_ID");
            Ok((Profile { keys: None, ..profile }, source))
        }
        _ if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() => {
            Ok((Profile::default(), CredentialSource::Environment("AWS_WEB_IDENTITY_TOKEN_FILE")))
        }
        (None, Some(name)) => {
            let profile = Profile::read(name, Wanted::Named, environment)?;
            Ok((profile, CredentialSource::Profile(name.to_owned())))
        }
        (None, None) => {
            let profile = Profile::read("default", Wanted::ByDefault, environment)?;
            let container = environment
                .first(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]);
            let source = match (&profile.keys, container) {
                (Some(_), _) => CredentialSource::Profile("default".to_owned()),
                (None, Some(_)) => CredentialSource::Environment("AWS_CONTAINER_CREDENTIALS_…_URI"),
                (None, None) if environment.says("AWS_SKIP_SIGNATURE") => CredentialSource::Unknown,
                (None, None) => CredentialSource::Machine,
            };
            Ok((profile, source))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn built(
        uri: &str,
        variables: &[(&str, &str)],
    ) -> Result<(AmazonS3Builder, CredentialSource), OpenError> {
        let Location::S3(location) = Location::parse(uri)? else { panic!("{uri} is not in S3") };
        builder(&location, &variables.iter().copied().collect())
    }

    fn settings(uri: &str, variables: &[(&str, &str)]) -> [Option<String>; 4] {
        let (builder, _) = built(uri, variables).unwrap();
        [Key::AccessKeyId, Key::Token, Key::Region, Key::S3Endpoint].map(|key| builder.get_config_value(&key))
    }

    fn some(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn the_uri_takes_precedence_over_the_environment_and_that_over_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        let text = "[default]\naws_access_key_id=D\naws_secret_access_key=s\nregion=default-1\n[r2]\naws_access_key_id=R\naws_secret_access_key=s\nregion=auto\nendpoint_url=https://r2.example\n";
        std::fs::write(&file, text).unwrap();
        let files = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
        let keys = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "t")];
        let region = ("AWS_DEFAULT_REGION", "env-1");
        let with_keys = [&keys[..], &[files, region]].concat();

        assert_eq!(settings("s3://b", &[files]), [some("D"), None, some("default-1"), None]);
        assert_eq!(settings("s3://b", &with_keys), [some("E"), some("t"), some("env-1"), None]);
        let of_r2 = [some("R"), None, some("auto"), some("https://r2.example")];
        assert_eq!(settings("s3://b?profile=r2", &with_keys), of_r2);
        assert_eq!(settings("s3://b", &[files, ("AWS_PROFILE", "r2")]), of_r2);
        assert_eq!(
            settings("s3://b?profile=r2&region=eu-2&endpoint=https://c.example", &with_keys),
            [some("R"), None, some("eu-2"), some("https://c.example")]
        );
        let endpoint = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        assert_eq!(
            settings("s3://b?endpoint=https://c.example", &[files, endpoint])[3],
            some("https://c.example")
        );
        assert_eq!(settings("s3://b", &[files, endpoint])[3], some("http://127.0.0.1:1"));
    }

    #[test]
    fn where_credentials_come_from_is_known() {
        let source = |variables: &[(&str, &str)]| built("s3://b", variables).unwrap().1;
        assert_eq!(source(&[]), CredentialSource::Machine);
        let keys = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert_eq!(source(&keys), CredentialSource::Environment("AWS_ACCESS_KEY_ID"));
        let error = built("s3://b", &[("AWS_PROFILE", "nowhere")]).err().unwrap();
        assert!(matches!(&error, OpenError::Credentials { why, .. } if why.contains("nowhere")), "{error}");
    }

    #[test]
    fn clear_text_over_a_network_must_be_allowed_and_is_signed() {
        let unsigned = |uri: &str, variables: &[(&str, &str)]| {
            built(uri, variables).map(|(builder, _)| builder.get_config_value(&Key::UnsignedPayload))
        };
        assert_eq!(unsigned("s3://b", &[]).unwrap(), some("true"));
        for host in ["127.0.0.1:9000", "localhost", "[::1]:9000"] {
            assert_eq!(unsigned(&format!("s3://b?endpoint=http://{host}"), &[]).unwrap(), some("true"));
        }
        let uri = "s3://b?endpoint=http://minio.lab:9000";
        let error = unsigned(uri, &[]).unwrap_err();
        assert!(error.to_string().contains("AWS_ALLOW_HTTP=true"), "{error}");
        assert_eq!(unsigned(uri, &[("AWS_ALLOW_HTTP", "true")]).unwrap(), some("false"));
    }
}
