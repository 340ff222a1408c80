//! The client for S3 and what speaks it.

use std::sync::Arc;

use object_store::{
    ObjectStore,
    aws::{AmazonS3Builder, AmazonS3ConfigKey as Key},
};

use super::{
    Environment, Location, OpenError, S3Location,
    connection::{self, Channel},
    profile::{Profile, Wanted},
};
use crate::object::slow_down;

/// Where it may find credentials.
const LOOKED_IN: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, a web identity, the container or the machine";

/// Where a client gets its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CredentialSource {
    /// From these variables.
    Environment(&'static str),
    /// From a profile of AWS's shared files.
    Profile(String),
    /// From the metadata service of the machine, since nothing else was found.
    Machine,
    /// It needs none, or it is not known.
    Unknown,
}

/// Builds the client; see [`builder`] for its settings.
pub(super) fn client(
    place: &S3Location,
    environment: &Environment,
) -> Result<(Arc<dyn ObjectStore>, CredentialSource), OpenError> {
    let (builder, source) = builder(place, environment)?;
    let client = builder.build().map_err(|error| OpenError::Client {
        uri: Location::S3(place.clone()).to_string(),
        looked_in: LOOKED_IN,
        source: error,
    })?;
    Ok((Arc::new(client), source))
}

/// Credentials are those of the URI's profile if it names one; else of the environment; else of the profile that
/// `AWS_PROFILE` names, or `default`; else of the container or the machine. Region and endpoint are those of the URI; else
/// of its profile; else of the environment; else of the profile.
fn builder(
    place: &S3Location,
    environment: &Environment,
) -> Result<(AmazonS3Builder, CredentialSource), OpenError> {
    let whole = Location::S3(place.clone());
    let no_credentials = |why| OpenError::Credentials { uri: whole.to_string(), why };
    let has_own = environment.first(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]).is_some();
    let (profile, source) = match (&place.profile, environment.get("AWS_PROFILE")) {
        (Some(name), _) => {
            let profile = Profile::read(name, Wanted::Named, environment).map_err(no_credentials)?;
            (profile, CredentialSource::Profile(name.clone()))
        }
        _ if has_own => {
            // Its region and endpoint count all the same; that it cannot give keys does not.
            let name = environment.get("AWS_PROFILE").unwrap_or("default");
            let profile = Profile::read(name, Wanted::ByDefault, environment).unwrap_or_default();
            (Profile { keys: None, ..profile }, CredentialSource::Environment("AWS_ACCESS_KEY_ID"))
        }
        _ if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() => {
            (Profile::default(), CredentialSource::Environment("AWS_WEB_IDENTITY_TOKEN_FILE"))
        }
        (None, Some(name)) => {
            let profile = Profile::read(name, Wanted::Named, environment).map_err(no_credentials)?;
            (profile, CredentialSource::Profile(name.to_owned()))
        }
        (None, None) => {
            let profile = Profile::read("default", Wanted::ByDefault, environment).map_err(no_credentials)?;
            let container = environment
                .first(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]);
            let source = match (&profile.keys, container) {
                (Some(_), _) => CredentialSource::Profile("default".to_owned()),
                (None, Some(_)) => CredentialSource::Environment("AWS_CONTAINER_CREDENTIALS_…_URI"),
                (None, None) if environment.says("AWS_SKIP_SIGNATURE") => CredentialSource::Unknown,
                (None, None) => CredentialSource::Machine,
            };
            (profile, source)
        }
    };

    let in_profile = |value: &Option<String>| value.clone().filter(|_| place.profile.is_some());
    let endpoint = place.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    let endpoint = endpoint
        .or_else(|| in_profile(&profile.endpoint))
        .or_else(|| {
            environment.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]).map(str::to_owned)
        })
        .or_else(|| profile.endpoint.clone());
    let region = place.region.clone();
    let region = region
        .or_else(|| in_profile(&profile.region))
        .or_else(|| environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).map(str::to_owned))
        .or_else(|| profile.region.clone());

    let channel = connection::channel(&whole, endpoint.as_deref(), environment, "AWS_ALLOW_HTTP")?;
    let mut builder = AmazonS3Builder::new()
        .with_client_options(connection::options(channel))
        .with_http_connector(slow_down::Listening::default())
        .with_retry(connection::retries())
        // A signature over the body costs a SHA-256 of every pack: as long as the put itself on a fast link. TLS
        // protects the body on its way, and what is read back is compared with its BLAKE3. Without TLS nothing else
        // protects it, so there it is signed.
        .with_unsigned_payload(channel != Channel::ClearText);
    for (name, value) in environment.options("AWS_") {
        let Ok(key) = name.parse::<Key>() else { continue };
        let is_credential = matches!(key, Key::AccessKeyId | Key::SecretAccessKey | Key::Token);
        if !(is_credential && place.profile.is_some()) {
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
        // This key beats the others that may be in the environment.
        builder = builder.with_config(Key::S3Endpoint, endpoint);
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    Ok((builder.with_bucket_name(&place.bucket), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(
        uri: &str,
        variables: &[(&str, &str)],
    ) -> Result<(AmazonS3Builder, CredentialSource), OpenError> {
        let Location::S3(place) = Location::parse(uri)? else { panic!("{uri} is no place in S3") };
        builder(&place, &variables.iter().copied().collect())
    }

    fn settings(uri: &str, variables: &[(&str, &str)]) -> [Option<String>; 4] {
        let (builder, _) = built(uri, variables).unwrap();
        [Key::AccessKeyId, Key::Token, Key::Region, Key::S3Endpoint].map(|key| builder.get_config_value(&key))
    }

    fn some(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn the_uri_beats_the_environment_and_that_the_profile() {
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
    fn clear_text_is_for_this_machine_and_what_goes_so_over_a_network_is_signed() {
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
