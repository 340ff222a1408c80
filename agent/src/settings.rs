//! The settings of an agent.

use std::{net::IpAddr, path::PathBuf};

use whimbrel_client::Access;
use whimbrel_proto::v1;

/// The settings of an agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The coordinator to join.
    pub coordinator: Access,
    /// The name of the node, for people.
    pub name: String,
    /// The provider, e.g. `aws`; may be empty.
    pub provider: String,
    /// The region, e.g. `us-east-1`; may be empty.
    pub region: String,
    /// The zone, e.g. `us-east-1a`; may be empty.
    pub zone: String,
    /// The machine type, e.g. `g5.xlarge`; may be empty.
    pub instance_type: String,
    /// Whether the provider may take the machine away.
    pub spot: bool,
    /// US dollars per hour, if known.
    pub price_per_hour: Option<f64>,
    /// Number of workers that the node offers to run; at least 1.
    pub slots: u32,
    /// The address at which workers on other nodes reach the workers here. By default the address from which this
    /// machine reaches the coordinator.
    pub advertise: Option<IpAddr>,
    /// The working directory of `setup` and of the workers.
    pub workdir: PathBuf,
}

impl Settings {
    /// The message with which the node joins.
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
