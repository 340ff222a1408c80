//! What the clients of all clouds have in common: deadlines, retries, and no clear text over a network.

use std::time::Duration;

use object_store::{ClientOptions, RetryConfig};
use url::{Host, Url};

use super::{Environment, Location, OpenError};

/// How a client may be reached, as its endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Encrypted.
    Tls,
    /// In clear text, and never leaves the machine.
    Loopback,
    /// In clear text over a network, since the user says so.
    ClearText,
}

/// How the endpoint is reached; the cloud's own, if there is none. Clear text is for this machine alone, unless
/// `variable` says `true`.
pub(crate) fn channel(
    place: &Location,
    endpoint: Option<&str>,
    environment: &Environment,
    variable: &'static str,
) -> Result<Channel, OpenError> {
    // One that is not a URL is the client's to complain of.
    let Some(url) = endpoint.and_then(|endpoint| Url::parse(endpoint).ok()) else { return Ok(Channel::Tls) };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "http" if is_loopback => Ok(Channel::Loopback),
        "http" if environment.says(variable) => Ok(Channel::ClearText),
        "http" => Err(OpenError::ClearText { uri: place.to_string(), endpoint: url.to_string(), variable }),
        _ => Ok(Channel::Tls),
    }
}

/// The client's own limit on a whole request, 30 s, is too short for a pack on a slow link, and it cannot know how
/// long the body is. [`RetryPolicy`](crate::RetryPolicy) does, and bounds every request.
pub(crate) fn options(channel: Channel) -> ClientOptions {
    // TLS by ring, which builds everywhere in seconds. That the program has chosen already is no failure.
    rustls::crypto::ring::default_provider().install_default().ok();
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(channel != Channel::Tls)
}

/// The client tries once: retries are [`RetryPolicy`](crate::RetryPolicy)'s, which sees every 429 and 503 and can slow down.
/// Made by the client they would be hidden, and those it makes of a create hide whose write it was.
pub(crate) fn retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}
