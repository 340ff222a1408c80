//! `whimbrel agent`.

use std::{net::IpAddr, num::NonZero, path::PathBuf};

use serde::Deserialize;

use super::at_least_one;
use whimbrel_client::Address;

/// Join this machine to a coordinator, as a node on which workers can be started.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  whimbrel agent --join 10.0.0.5:7070 --provider aws --region us-east-1 --instance-type g5.xlarge --spot \\
      --price-per-hour 0.43 --slots 1 --token-file /etc/whimbrel/token")]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) settings: NodeSettings,
}

/// The settings of an agent and its node; also the section `[agent]` of the settings files.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NodeSettings {
    /// Where the coordinator listens.
    #[arg(long, value_name = "HOST:PORT", env = "WHIMBREL_JOIN")]
    pub(crate) join: Option<Address>,

    /// The name of the node, for people [default: its host name].
    #[arg(long, env = "WHIMBREL_NAME")]
    pub(crate) name: Option<String>,

    /// The provider of the machine, e.g. aws, azure, gcp [default: local].
    #[arg(long, env = "WHIMBREL_PROVIDER")]
    pub(crate) provider: Option<String>,

    /// The provider's name of its region, e.g. us-east-1.
    #[arg(long, env = "WHIMBREL_REGION")]
    pub(crate) region: Option<String>,

    /// The provider's name of its zone, e.g. us-east-1a.
    #[arg(long, env = "WHIMBREL_ZONE")]
    pub(crate) zone: Option<String>,

    /// The provider's name of its machine type, e.g. g5.xlarge.
    #[arg(long, value_name = "TYPE", env = "WHIMBREL_INSTANCE_TYPE")]
    pub(crate) instance_type: Option<String>,

    /// The provider may take the machine away at short notice.
    #[arg(long, env = "WHIMBREL_SPOT", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) spot: Option<bool>,

    /// The price of the machine, in US dollars per hour.
    #[arg(long, value_name = "DOLLARS", env = "WHIMBREL_PRICE_PER_HOUR", allow_negative_numbers = true)]
    pub(crate) price_per_hour: Option<Price>,

    /// Number of workers that this machine offers to run [default: 1].
    #[arg(long, value_name = "N", env = "WHIMBREL_SLOTS", value_parser = at_least_one::<NonZero<u32>>)]
    pub(crate) slots: Option<NonZero<u32>>,

    /// The address at which workers on other nodes reach the workers here [default: the address of this machine from which
    /// it reaches the coordinator].
    #[arg(long, value_name = "IP", env = "WHIMBREL_ADVERTISE")]
    pub(crate) advertise: Option<IpAddr>,

    /// The directory in which `setup` and workers are started [default: the working directory].
    #[arg(long, value_name = "PATH", env = "WHIMBREL_WORKDIR")]
    pub(crate) workdir: Option<PathBuf>,

    /// The file that holds the coordinator's token [default: the token in WHIMBREL_TOKEN, or ~/.config/whimbrel/token if
    /// it exists].
    #[arg(long, value_name = "PATH", env = "WHIMBREL_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl NodeSettings {
    /// These settings, completed by those of `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            join: self.join.or(file.join),
            name: self.name.or(file.name),
            provider: self.provider.or(file.provider),
            region: self.region.or(file.region),
            zone: self.zone.or(file.zone),
            instance_type: self.instance_type.or(file.instance_type),
            spot: self.spot.or(file.spot),
            price_per_hour: self.price_per_hour.or(file.price_per_hour),
            slots: self.slots.or(file.slots),
            advertise: self.advertise.or(file.advertise),
            workdir: self.workdir.or(file.workdir),
            token_file: self.token_file.or(file.token_file),
        }
    }
}

/// US dollars an hour: finite and not negative.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(crate) struct Price(pub(crate) f64);

/// The number is not a price.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a price; write US dollars an hour, such as 0.43")]
pub(crate) struct InvalidPrice(String);

impl TryFrom<f64> for Price {
    type Error = InvalidPrice;

    fn try_from(dollars: f64) -> Result<Self, InvalidPrice> {
        if dollars.is_finite() && dollars >= 0.0 {
            Ok(Self(dollars))
        } else {
            Err(InvalidPrice(dollars.to_string()))
        }
    }
}

impl std::str::FromStr for Price {
    type Err = InvalidPrice;

    fn from_str(text: &str) -> Result<Self, InvalidPrice> {
        text.parse::<f64>().map_err(|_| InvalidPrice(format!("{text:?}"))).and_then(Self::try_from)
    }
}
