//! What a cloud's refusal means: bad credentials, a missing permission, no such bucket, no server.
//!
//! The clients of `object_store` report most refusals as text only, so the cause is found by the codes in that text.

use std::error::Error as StdError;

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

use crate::object::StoreError;

/// Why a request was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such bucket or container.
    NoBucket,
    /// The credentials are wrong, expired or absent.
    Credentials,
    /// The credentials are valid, and lack the permission.
    Permission,
    /// The bucket is in another region.
    Region,
    /// No server answers.
    Unreachable,
    /// The server does not support the request.
    Unsupported,
    /// Another cause: see the store's answer.
    Other,
}

/// Codes of S3 and GCS for invalid credentials. AWS documents them under "Error responses".
const BAD_CREDENTIALS: [&str; 11] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "AuthenticationRequired",
    // Azure's.
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
    "AuthorizationExpired",
];

/// Codes for a bucket in another region.
const OTHER_REGION: [&str; 4] = [
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
];

/// Azure's message for invalid credentials. Its code varies.
const NOT_AUTHENTICATED: &str = "Server failed to authenticate the request";

impl Refusal {
    /// The cause of a failed request to a store.
    pub(crate) fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Refused { source, .. } => Self::of_answer(source),
            StoreError::Silent { .. } => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// The cause of a client's error.
    pub fn of_answer(error: &Error) -> Self {
        // Without other credentials the client asks the machine's metadata service: the error may be about that.
        if is_about_metadata(error) { Self::Credentials } else { Self::of_text(error) }
    }

    fn of_text(error: &Error) -> Self {
        let text = with_causes(error);
        let status = status_of(&text);
        let code = code_of(&text).unwrap_or_default();
        match error {
            _ if ["NoSuchBucket", "ContainerNotFound"].contains(&code) => Self::NoBucket,
            _ if BAD_CREDENTIALS.contains(&code) || text.contains(NOT_AUTHENTICATED) => Self::Credentials,
            _ if OTHER_REGION.contains(&code) || text.contains("redirect without LOCATION") => Self::Region,
            // The client has no kind of error for a refused listing or bulk deletion: the status is only in the text.
            _ if status == Some(401) => Self::Credentials,
            _ if status == Some(403) || code == "AccessDenied" => Self::Permission,
            Error::NotImplemented { .. } | Error::NotSupported { .. } => Self::Unsupported,
            Error::Generic { .. } if status == Some(501) => Self::Unsupported,
            Error::Generic { .. } if is_unreachable(error) => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// Whether the connection failed or broke.
fn is_unreachable(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
            return matches!(error.kind(), Connect | Request | Timeout | Interrupted);
        }
        cause = error.source();
    }
    false
}

/// Whether the request that failed was to the machine's metadata service, which gives credentials, and not to the store.
fn is_about_metadata(error: &Error) -> bool {
    let text = format!("{error} {error:?}");
    // Amazon's machines and containers; Azure; Google.
    let paths = [
        "/latest/api/token",
        "/latest/meta-data/",
        "169.254.170.2",
        "/metadata/identity/",
        "/computeMetadata/",
    ];
    paths.iter().any(|path| text.contains(path))
}

/// The HTTP status in an error's text. The client gives it in no other way.
fn status_of(text: &str) -> Option<u16> {
    let (_, behind) = text.split_once("status code: ").or_else(|| text.split_once("(code: "))?;
    behind.get(..3)?.parse().ok()
}

/// The code in the XML of an answer of S3, Azure or Google, or in the text of a bulk deletion.
fn code_of(text: &str) -> Option<&str> {
    let in_xml = text.split_once("<Code>").and_then(|(_, behind)| behind.split_once("</Code>"));
    let in_text = || text.split_once("(code: ").and_then(|(_, behind)| behind.split_once(')'));
    in_xml.or_else(in_text).map(|(code, _)| code)
}

/// The text of an error and all its causes.
fn with_causes(error: &dyn StdError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_causes(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Refusal {
        Refusal::of_answer(&Error::Generic { store: "S3", source: words.into() })
    }

    #[test]
    fn refusals_are_recognised_by_the_text_of_the_client() {
        // The client's texts for answers of Amazon, Azure and others. The conformance tests try the others on servers.
        let status = "Server returned non-2xx status code:";
        assert_eq!(
            of(&format!("{status} 403 Forbidden: <Error><Code>AccessDenied</Code></Error>")),
            Refusal::Permission
        );
        assert_eq!(
            of("DeleteObjects request failed for key a: Access Denied (code: AccessDenied)"),
            Refusal::Permission
        );
        assert_eq!(
            of("Bulk delete request failed for key a: not authorized (code: 403)"),
            Refusal::Permission
        );
        assert_eq!(
            of(&format!("{status} 400 Bad Request: <Error><Code>ExpiredToken</Code></Error>")),
            Refusal::Credentials
        );
        assert_eq!(of(&format!("{status} 401 Unauthorized: ")), Refusal::Credentials);
        let wrong_region =
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        assert_eq!(of(&format!("{status} 400 Bad Request: {wrong_region}")), Refusal::Region);
        assert_eq!(
            of(
                "Received redirect without LOCATION, this normally indicates an incorrectly configured region"
            ),
            Refusal::Region
        );
        assert_eq!(of(&format!("{status} 501 Not Implemented: ")), Refusal::Unsupported);
        assert_eq!(of(&format!("{status} 503 Slow Down: ")), Refusal::Other);
        for answer in [format!("{status} 403 Forbidden: "), "HTTP error: error sending request".into()] {
            let metadata = format!("PUT http://169.254.169.254/latest/api/token in 6ms - {answer}");
            assert_eq!(of(&metadata), Refusal::Credentials);
        }
    }
}
