//! Settings that the clients of all clouds share: deadlines, retries, and no clear text over a network.

use std::{fmt, time::Duration};

use object_store::{ClientOptions, RetryConfig};
use url::{Host, Url};

use super::{environment::Environment, error::OpenError};

/// How the connection to an endpoint is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Encrypted.
    Tls,
    /// Clear text that never leaves the machine.
    Loopback,
    /// Clear text over a network, allowed by the user.
    ClearText,
}

/// The channel to an endpoint; without one, the cloud's own endpoint is meant. Clear text over a network is an error
/// unless the environment variable `variable` allows it.
pub(crate) fn channel(
    location: &impl fmt::Display,
    endpoint: Option<&str>,
    environment: &Environment,
    variable: &'static str,
) -> Result<Channel, OpenError> {
    // The client reports an endpoint that is not a URL.
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
        "http" => {
            Err(OpenError::ClearText { uri: location.to_string(), endpoint: url.to_string(), variable })
        }
        _ => Ok(Channel::Tls),
    }
}

/// Options of every client. The client's own timeout of 30 s for a whole request is too short for a pack on a slow link,
/// and does not depend on the length of the body. [`RetryPolicy`](crate::RetryPolicy) sets the deadlines instead.
pub(crate) fn options(channel: Channel) -> ClientOptions {
    // TLS by ring, which builds everywhere in seconds. An error means that the program has chosen a provider already.
    rustls::crypto::ring::default_provider().install_default().ok();
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(channel != Channel::Tls)
}

/// The client makes one attempt. [`RetryPolicy`](crate::RetryPolicy) retries instead: it must see every 429 and 503, and
/// a retried create must be told apart from the create of another writer.
pub(crate) fn retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}
