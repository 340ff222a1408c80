//! Egress prices: what it costs to copy bytes out of a store.
//!
//! Providers charge by the gigabyte for bytes that leave them, and nothing for bytes that arrive. The price depends on the
//! destination and on the volume of the month, which a URI does not tell. So the table has one price for each provider:
//! the list price of the first paid gigabytes to the internet. Free allowances and volume discounts are left out, and a
//! gigabyte is 10⁹ bytes where some bills count 2³⁰, so the estimate is rather too high than too low. The user can set
//! other prices ([`Prices::new`]).

use std::{collections::BTreeMap, env, fmt};

use url::Url;

/// USD per gigabyte to the internet, first paid tier, North America and Europe; as listed in 2026.
const LISTED: [(&str, f64); 5] = [
    // aws.amazon.com/ec2/pricing/on-demand, "Data Transfer": the first 10 TB a month, after 100 GB that are free.
    ("aws", 0.09),
    // azure.microsoft.com/pricing/details/bandwidth: the first 10 TB a month, Microsoft's network, after 100 GB.
    ("azure", 0.087),
    // cloud.google.com/storage/pricing, "Network egress": the first TiB a month, premium tier.
    ("gcp", 0.12),
    // developers.cloudflare.com/r2/pricing: egress is free.
    ("r2", 0.0),
    // A folder, or a server on this machine: the user knows what its network costs.
    ("local", 0.0),
];

/// Prices per gigabyte: the providers' list prices and the user's own.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    own: BTreeMap<String, f64>,
    endpoint: Option<String>,
}

/// A price that is invalid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PriceError {
    /// The key is neither a provider nor a bucket.
    #[error(
        "{key:?} is neither a provider (aws, azure, gcp, r2, local) nor a bucket such as s3://lab or az://lab"
    )]
    Key {
        /// The key.
        key: String,
    },
    /// The price is negative or not a number.
    #[error("{usd} is no price for {key:?}: it is in USD per gigabyte, 0 or more")]
    Usd {
        /// The key.
        key: String,
        /// The price.
        usd: f64,
    },
}

impl Prices {
    /// The user's own prices in USD per gigabyte, by provider (`aws`) or by bucket (`s3://lab`, without a prefix). List
    /// prices apply to the rest.
    pub fn new(own: BTreeMap<String, f64>) -> Result<Self, PriceError> {
        for (key, &usd) in &own {
            let is_provider = LISTED.iter().any(|(provider, _)| provider == key);
            if !is_provider && bucket(key).is_none_or(|bucket| bucket != *key) {
                return Err(PriceError::Key { key: key.clone() });
            }
            if !(usd.is_finite() && usd >= 0.0) {
                return Err(PriceError::Usd { key: key.clone(), usd });
            }
        }
        // The S3 client's endpoint if the URI names none.
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
        let endpoint = endpoint.iter().find_map(|variable| env::var(variable).ok());
        Ok(Self { own, endpoint })
    }

    /// The price at `uri`, per gigabyte.
    fn of(&self, uri: &str) -> Option<f64> {
        let own = bucket(uri).and_then(|bucket| self.own.get(&bucket));
        let provider = provider(uri, self.endpoint.as_deref());
        let own = own.or_else(|| self.own.get(provider?));
        let listed = || LISTED.iter().find(|(name, _)| Some(*name) == provider).map(|(_, usd)| *usd);
        own.copied().or_else(listed)
    }
}

/// The price of a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Price {
    /// The source's provider charges no egress.
    Free,
    /// This price.
    Usd {
        /// USD for all of it.
        total: f64,
        /// USD per gigabyte.
        per_gb: f64,
    },
    /// Source and destination are with one provider: free within a region, otherwise at most this, the price to the
    /// internet.
    AtMost {
        /// USD for all of it.
        total: f64,
        /// USD per gigabyte.
        per_gb: f64,
    },
    /// The provider, and so the price, is not known.
    Unknown,
}

impl Price {
    /// The price in USD at most; 0 if it is not known.
    pub fn usd(&self) -> f64 {
        match *self {
            Self::Usd { total, .. } | Self::AtMost { total, .. } => total,
            Self::Free | Self::Unknown => 0.0,
        }
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("egress is free"),
            Self::Usd { total, per_gb } => write!(f, "egress about ${total:.2} (${per_gb} per GB)"),
            Self::AtMost { total, per_gb } => write!(
                f,
                "egress nothing within one region, at most ${total:.2} (${per_gb} per GB) if it leaves it"
            ),
            Self::Unknown => f.write_str("egress price unknown (set it under [egress] in whimbrel.toml)"),
        }
    }
}

/// The price of copying so many bytes from one store, or run, to another, by their URIs.
pub fn egress_price(source_uri: &str, destination_uri: &str, bytes: u64, prices: &Prices) -> Price {
    let Some(per_gb) = prices.of(source_uri) else { return Price::Unknown };
    if per_gb == 0.0 || bytes == 0 {
        return Price::Free;
    }
    let total = per_gb * bytes as f64 / 1e9;
    let provider_of = |uri| provider(uri, prices.endpoint.as_deref());
    if provider_of(source_uri).is_some() && provider_of(source_uri) == provider_of(destination_uri) {
        Price::AtMost { total, per_gb }
    } else {
        Price::Usd { total, per_gb }
    }
}

/// The bucket of a URI: `s3://lab` for `s3://lab/runs/r`, `az://lab` for every form of an Azure container's URI.
fn bucket(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?']).next().filter(|authority| !authority.is_empty())?;
    match scheme {
        "s3" | "gs" | "az" => Some(format!("{scheme}://{authority}")),
        "abfs" | "abfss" => Some(format!("az://{}", authority.split_once('@')?.0)),
        "https" if is_azure(authority) => {
            let container = rest.split(['/', '?']).nth(1).filter(|container| !container.is_empty())?;
            Some(format!("az://{container}"))
        }
        _ => None,
    }
}

fn is_azure(host: &str) -> bool {
    [".blob.core.windows.net", ".dfs.core.windows.net"].iter().any(|domain| host.ends_with(domain))
}

/// The provider of a store; `None` if it is not known.
fn provider(uri: &str, default_endpoint: Option<&str>) -> Option<&'static str> {
    let Some((scheme, rest)) = uri.split_once("://") else { return Some("local") };
    match scheme {
        "file" => Some("local"),
        "gs" => Some("gcp"),
        "az" | "abfs" | "abfss" => Some("azure"),
        "https" if is_azure(rest.split('/').next()?) => Some("azure"),
        "s3" => {
            let given = Url::parse(uri).ok().and_then(|url| {
                url.query_pairs().find(|(key, _)| key == "endpoint").map(|(_, value)| value.into_owned())
            });
            match given.as_deref().or(default_endpoint) {
                None => Some("aws"),
                Some(endpoint) => provider_at(endpoint),
            }
        }
        _ => None,
    }
}

/// The provider of an S3 endpoint.
fn provider_at(endpoint: &str) -> Option<&'static str> {
    let with_scheme =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") };
    let url = Url::parse(&with_scheme).ok()?;
    let host = url.host_str()?;
    if host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    {
        return Some("local");
    }
    let under = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    match () {
        () if under("amazonaws.com") => Some("aws"),
        () if under("r2.cloudflarestorage.com") => Some("r2"),
        () if host == "storage.googleapis.com" || under("storage.googleapis.com") => Some("gcp"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn listed() -> Prices {
        Prices::default()
    }

    fn own(key: &str, usd: f64) -> Result<Prices, PriceError> {
        Prices::new(BTreeMap::from([(key.to_owned(), usd)]))
    }

    #[test]
    fn the_price_is_that_of_the_source() {
        let price = |from, to| egress_price(from, to, 100 * GB, &listed());
        assert_eq!(price("s3://lab/runs/r", "az://lab/runs"), Price::Usd { total: 9.0, per_gb: 0.09 });
        assert_eq!(price("az://lab/runs/r", "s3://lab/runs"), Price::Usd { total: 8.7, per_gb: 0.087 });
        assert_eq!(price("gs://lab/r", "file:///runs"), Price::Usd { total: 12.0, per_gb: 0.12 });
        for azure in [
            "abfss://lab@account.dfs.core.windows.net/runs/r",
            "https://account.blob.core.windows.net/lab/runs/r",
        ] {
            assert_eq!(price(azure, "gs://lab"), price("az://lab/runs/r", "gs://lab"), "{azure}");
        }
        assert_eq!(price("/srv/runs/r", "s3://lab"), Price::Free);
        assert_eq!(price("file:///srv/runs/r", "s3://lab"), Price::Free);
        assert_eq!(price("s3://lab/r?endpoint=https://x.r2.cloudflarestorage.com", "s3://lab"), Price::Free);
        assert_eq!(price("s3://lab/r?endpoint=http://127.0.0.1:9000", "s3://lab"), Price::Free);
        assert_eq!(price("s3://lab/r?endpoint=http://[::1]:9000", "s3://lab"), Price::Free);
        assert_eq!(price("s3://lab/r?endpoint=https://minio.example.org", "s3://lab"), Price::Unknown);
        assert_eq!(price("s3://lab/r?endpoint=https://notamazonaws.com", "s3://lab"), Price::Unknown);
    }

    #[test]
    fn within_a_provider_it_is_at_most_the_price_to_the_internet() {
        let price = egress_price("s3://east/r", "s3://west/r?region=us-west-2", 10 * GB, &listed());
        assert!(matches!(price, Price::AtMost { total, .. } if (total - 0.9).abs() < 1e-9), "{price:?}");
        assert_eq!(egress_price("s3://east/r", "az://west", 0, &listed()), Price::Free);
    }

    #[test]
    fn the_users_prices_take_precedence() {
        let to = "gs://lab";
        let prices = own("s3://lab", 0.01).unwrap();
        assert_eq!(egress_price("s3://lab/runs/r", to, GB, &prices).usd(), 0.01);
        assert_eq!(
            egress_price("s3://lab/r?endpoint=https://minio.example.org", to, GB, &prices).usd(),
            0.01
        );
        assert_eq!(egress_price("s3://other/runs/r", to, GB, &prices).usd(), 0.09);
        assert_eq!(egress_price("az://lab/r", to, GB, &own("azure", 0.0).unwrap()), Price::Free);
        let prices = own("az://lab", 0.02).unwrap();
        assert_eq!(
            egress_price("abfss://lab@a.dfs.core.windows.net/r", to, GB, &prices).usd(),
            0.02,
            "a container is the same however it is named"
        );
    }

    #[test]
    fn invalid_prices_are_refused() {
        for key in ["amazon", "s3://", "s3://lab/runs", "http://lab", ""] {
            assert_eq!(own(key, 1.0).unwrap_err(), PriceError::Key { key: key.into() });
        }
        for usd in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(own("aws", usd).unwrap_err(), PriceError::Usd { .. }));
        }
    }
}
