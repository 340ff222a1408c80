//! What a cloud's refusal means: bad credentials, a missing permission, no such bucket, nobody there.

use std::error::Error as StdError;

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

use crate::object::folder::StoreError;

/// Why a request was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such bucket or container.
    NoBucket,
    /// The credentials are wrong, have expired, or there are none.
    Credentials,
    /// The credentials are good, and may not do this.
    Permission,
    /// The bucket is in another region.
    Region,
    /// Nobody answers there.
    Unreachable,
    /// The server does not know what is asked of it.
    Unsupported,
    /// Anything else, in the server's own words.
    Other,
}

/// Codes with which S3 and GCS say that the credentials are not good. AWS documents them under "Error responses".
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

/// Codes with which a server says that the bucket is elsewhere.
const OTHER_REGION: [&str; 4] = [
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
];

/// Azure's message for credentials that are not good, whichever code goes with it.
const NOT_AUTHENTICATED: &str = "Server failed to authenticate the request";

impl Refusal {
    /// What a failed request to a store means.
    pub(crate) fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Refused { source, .. } => Self::of_answer(source),
            StoreError::Silent { .. } => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// What a client's error means.
    pub fn of_answer(error: &Error) -> Self {
        // What was not reached, or said no, may have been the machine's metadata service, which is asked where nothing
        // else gives credentials.
        if is_about_metadata(error) { Self::Credentials } else { Self::by_words(error) }
    }

    fn by_words(error: &Error) -> Self {
        let text = told(error);
        let status = status_of(&text);
        let code = code_of(&text).unwrap_or_default();
        match error {
            _ if ["NoSuchBucket", "ContainerNotFound"].contains(&code) => Self::NoBucket,
            _ if BAD_CREDENTIALS.contains(&code) || text.contains(NOT_AUTHENTICATED) => Self::Credentials,
            _ if OTHER_REGION.contains(&code) || text.contains("redirect without LOCATION") => Self::Region,
            // A refused listing, or deletion of many, is an error of no kind: its status is only in its words.
            _ if status == Some(401) => Self::Credentials,
            _ if status == Some(403) || code == "AccessDenied" => Self::Permission,
            Error::NotImplemented { .. } | Error::NotSupported { .. } => Self::Unsupported,
            Error::Generic { .. } if status == Some(501) => Self::Unsupported,
            Error::Generic { .. } if is_unreachable(error) => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// Whether the connection was not made, or broke.
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

/// Whether it was the machine's metadata service, where clouds have their credentials, that failed, and not the store.
fn is_about_metadata(error: &Error) -> bool {
    let text = format!("{error} {error:?}");
    // Amazon's, of its machines and containers; Azure's; Google's.
    let places = [
        "/latest/api/token",
        "/latest/meta-data/",
        "169.254.170.2",
        "/metadata/identity/",
        "/computeMetadata/",
    ];
    places.iter().any(|place| text.contains(place))
}

/// The HTTP status that an error tells. The client has no other way to say it than in words.
fn status_of(text: &str) -> Option<u16> {
    let (_, behind) = text.split_once("status code: ").or_else(|| text.split_once("(code: "))?;
    behind.get(..3)?.parse().ok()
}

/// The code in the XML of an answer, S3's, Azure's and Google's alike, or that of one deletion of many.
fn code_of(text: &str) -> Option<&str> {
    let in_xml = text.split_once("<Code>").and_then(|(_, behind)| behind.split_once("</Code>"));
    let in_words = || text.split_once("(code: ").and_then(|(_, behind)| behind.split_once(')'));
    in_xml.or_else(in_words).map(|(code, _)| code)
}

/// The error with all its causes.
fn told(error: &dyn StdError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", told(source)),
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
    fn refusals_that_the_client_has_no_kind_for_are_told_by_their_words() {
        // As the client words what Amazon, Azure and others answer; the kinds that it has are tried on servers.
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
