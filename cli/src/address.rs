//! `HOST:PORT`.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// Where a coordinator listens: a host name or an IP address (IPv6 in brackets), and a port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HostPort(String);

/// The text is not `HOST:PORT`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not HOST:PORT; write it as 127.0.0.1:7070, coordinator.example:7070 or [::1]:7070")]
pub(crate) struct InvalidHostPort(String);

impl HostPort {
    /// Where a coordinator listens unless it is told otherwise.
    pub(crate) fn usual() -> Self {
        Self("127.0.0.1:7070".into())
    }
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, InvalidHostPort> {
        let invalid = || InvalidHostPort(text.chars().take(80).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good_host = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                !host.is_empty() && host.chars().all(good)
            }
        };
        let good_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        if good_host && good_port { Ok(Self(text.to_owned())) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for HostPort {
    type Error = InvalidHostPort;

    fn try_from(text: String) -> Result<Self, InvalidHostPort> {
        text.parse()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_once_and_wrong_ones_refused() {
        for good in ["127.0.0.1:7070", "localhost:1", "node-1.example.com:65535", "[::1]:7070"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "localhost",
            ":7070",
            "localhost:",
            "localhost:0",
            "a:65536",
            "::1:7070",
            "http://a:1",
            "a b:1",
        ] {
            let error = bad.parse::<HostPort>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} is not HOST:PORT")), "{error}");
        }
    }
}
