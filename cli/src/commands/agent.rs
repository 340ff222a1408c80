//! `whimbrel agent`.

use std::{env, path::Path};

use whimbrel_agent::{Settings, Stop};
use whimbrel_client::Access;

use crate::{
    args::agent::{AgentArgs, NodeSettings, Price},
    exit::{Code, Failure},
    signals::Signals,
    token,
};

/// Joins this machine to a coordinator, until a signal.
pub(super) async fn run(args: AgentArgs, config: NodeSettings) -> Result<Code, Failure> {
    let token = token::find(args.settings.token_file.as_deref(), config.token_file.as_deref())?;
    let node = args.settings.over(config);
    let missing = || {
        Failure::bad_input("no coordinator is named")
            .hint("give --join HOST:PORT, or set WHIMBREL_JOIN, or join under [agent] of whimbrel.toml")
    };
    let workdir = match node.workdir {
        Some(path) => path,
        None => env::current_dir().map_err(Failure::unexpected)?,
    };
    if !workdir.is_dir() {
        return Err(Failure::bad_input(format!("--workdir {} is not a directory", workdir.display())));
    }
    let settings = Settings {
        coordinator: Access { address: node.join.ok_or_else(missing)?, token },
        name: node.name.unwrap_or_else(host_name),
        provider: node.provider.unwrap_or_else(|| "local".to_owned()),
        region: node.region.unwrap_or_default(),
        zone: node.zone.unwrap_or_default(),
        instance_type: node.instance_type.unwrap_or_default(),
        spot: node.spot.unwrap_or(false),
        price_per_hour: node.price_per_hour.map(|Price(dollars)| dollars),
        slots: node.slots.map_or(1, u32::from),
        advertise: node.advertise,
        workdir,
    };
    let mut signals = Signals::new().map_err(Failure::unexpected)?;
    let stop = Stop::default();
    let session = whimbrel_agent::run(settings, stop.clone());
    tokio::pin!(session);
    let ended = tokio::select! {
        ended = &mut session => ended,
        () = signals.next() => {
            tracing::info!("ending the workers; press Ctrl-C again to leave at once");
            stop.now.cancel();
            tokio::select! {
                ended = &mut session => ended,
                () = signals.next() => Ok(()),
            }
        }
    };
    ended.map_err(Failure::unreachable)?;
    Ok(Code::Done)
}

/// The settings of the agent in the process of `whimbrel run`, for the coordinator in the same process.
pub(super) fn embedded(coordinator: Access, slots: u32, workdir: &Path) -> Settings {
    Settings {
        coordinator,
        name: host_name(),
        provider: "local".to_owned(),
        region: String::new(),
        zone: String::new(),
        instance_type: String::new(),
        spot: false,
        price_per_hour: None,
        slots,
        advertise: None,
        workdir: workdir.to_owned(),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
