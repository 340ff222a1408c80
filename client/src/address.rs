//! The address of a coordinator, `HOST:PORT`.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::Deserialize;

/// The port on which a coordinator listens by default.
pub const PORT: u16 = 7070;

/// Where a coordinator listens: a host name or an IP address (IPv6 in brackets), and a port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(String);

/// The text is not `HOST:PORT`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not HOST:PORT; write it as 127.0.0.1:7070, coordinator.example:7070 or [::1]:7070")]
pub struct InvalidAddress(String);

impl Address {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Address {
    /// The default [`PORT`] on loopback.
    fn default() -> Self {
        SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.chars().take(80).collect());
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

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_parse_and_wrong_ones_are_refused() {
        for good in ["127.0.0.1:7070", "localhost:1", "node-1.example.com:65535", "[::1]:7070"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
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
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} is not HOST:PORT")), "{error}");
        }
    }

    #[test]
    fn socket_addresses_make_good_addresses() {
        assert_eq!(Address::default().as_str(), "127.0.0.1:7070");
        for text in ["10.0.0.1:80", "[::1]:7070"] {
            let address = Address::from(text.parse::<SocketAddr>().unwrap());
            assert_eq!(address.as_str().parse::<Address>().unwrap(), address);
        }
    }
}
