//! What an agent is told.

use std::{net::IpAddr, path::PathBuf};

use whimbrel_client::Access;
use whimbrel_proto::v1;

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The coordinator to join.
    pub coordinator: Access,
    /// What the node is called, for people.
    pub name: String,
    /// The cloud, e.g. `aws`; may be empty.
    pub provider: String,
    /// e.g. `us-east-1`; may be empty.
    pub region: String,
    /// e.g. `us-east-1a`; may be empty.
    pub zone: String,
    /// e.g. `g5.xlarge`; may be empty.
    pub instance_type: String,
    /// Whether the provider may take it away.
    pub spot: bool,
    /// US dollars, if known.
    pub price_per_hour: Option<f64>,
    /// How many workers it offers to run; at least 1.
    pub slots: u32,
    /// The address at which other nodes' workers reach this one's. By default the one from which the coordinator is
    /// reached.
    pub advertise: Option<IpAddr>,
    /// Where `setup` and the workers run.
    pub workdir: PathBuf,
}

impl Settings {
    /// The node as the coordinator hears of it.
    pub(crate) fn join(&self) -> v1::Join {
        v1::Join {
            name: self.name.clone(),
            provider: self.provider.clone(),
            region: self.region.clone(),
            zone: self.zone.clone(),
            instance_type: self.instance_type.clone(),
            spot: self.spot,
            price_per_hour: self.price_per_hour,
            slots: self.slots,
        }
    }
}
