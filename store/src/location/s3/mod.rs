//! S3 and servers that speak its protocol: the URI `s3://bucket/prefix?endpoint=…&region=…&profile=…`, and the client.

mod client;
mod profile;

use std::fmt;

use object_store::path::Path;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use super::{
    error::OpenError,
    uri_parts::{UriParts, malformed, slashed},
};

pub(super) use client::client;

/// A prefix in a bucket of S3 or of a compatible server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Location {
    pub(super) bucket: String,
    pub(super) prefix: Path,
    /// The server, if it is not Amazon's.
    pub(super) endpoint: Option<Url>,
    pub(super) region: Option<String>,
    /// The profile of AWS's shared files that gives the credentials.
    pub(super) profile: Option<String>,
}

impl S3Location {
    /// Reads `s3://bucket/prefix` and its options.
    pub(super) fn parse(uri: &UriParts<'_>) -> Result<Self, OpenError> {
        let bucket = uri.bucket(uri.authority)?;
        let (mut endpoint, mut region, mut profile) = (None, None, None);
        for (key, value) in url::form_urlencoded::parse(uri.query.as_bytes()) {
            let value = value.into_owned();
            if ends_in_step(&value) {
                let why = "a step stands before the options: s3://bucket/prefix/RUN@STEP?endpoint=…";
                return Err(malformed(uri.uri, why));
            }
            match key.as_ref() {
                "endpoint" => endpoint = Some(endpoint_of(uri.uri, &value)?),
                "region" => region = Some(value),
                "profile" => profile = Some(value),
                other => {
                    let why = format!(
                        "{other:?} is no option of s3://: it has endpoint, region and profile; secrets belong in the environment"
                    );
                    return Err(malformed(uri.uri, &why));
                }
            }
        }
        Ok(Self { bucket, prefix: uri.prefix(uri.path)?, endpoint, region, profile })
    }
}

/// Whether an option ends like the name of a checkpoint, `…@7`.
fn ends_in_step(value: &str) -> bool {
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

/// Characters that would end an option's value, or change its meaning.
const IN_QUERY: &AsciiSet =
    &CONTROLS.add(b' ').add(b'%').add(b'&').add(b'+').add(b'#').add(b'"').add(b'<').add(b'>');

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}{}", self.bucket, slashed(&self.prefix))?;
        let endpoint = self.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/'));
        let options = [
            ("endpoint", endpoint),
            ("region", self.region.as_deref()),
            ("profile", self.profile.as_deref()),
        ];
        let given = options.into_iter().filter_map(|(key, value)| Some((key, value?)));
        for (number, (key, value)) in given.enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            write!(f, "{mark}{key}={}", utf8_percent_encode(value, IN_QUERY))?;
        }
        Ok(())
    }
}
