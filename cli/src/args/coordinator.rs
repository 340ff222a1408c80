//! `whimbrel coordinator`.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// Serve a store: accept runs, and run them on the nodes that agents join.
///
/// The coordinator keeps its state in the store; another one that is started over the same store takes its runs over.
/// Beyond loopback, callers must send a token. The first start makes the token and prints it once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel coordinator --store file:///data/runs
  whimbrel coordinator --store s3://bucket/runs --listen 0.0.0.0:7070")]
pub(crate) struct CoordinatorArgs {
    #[command(flatten)]
    pub(crate) settings: ServerSettings,
}

/// The settings of a coordinator; also the section `[coordinator]` of the settings files.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerSettings {
    /// The store: s3://…, az://…, gs://…, file://… or a path.
    #[arg(long, value_name = "URI", env = "WHIMBREL_STORE")]
    pub(crate) store: Option<String>,

    /// The IP address and port to listen on [default: 127.0.0.1:7070].
    #[arg(long, value_name = "IP:PORT", env = "WHIMBREL_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,

    /// The file that holds the token that callers must send; made if it does not exist [default beyond loopback:
    /// ~/.config/whimbrel/token].
    #[arg(long, value_name = "PATH", env = "WHIMBREL_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Do not ask for a token beyond loopback: anyone who reaches the port may run any program on every node.
    #[arg(long, env = "WHIMBREL_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) insecure: Option<bool>,
}

impl ServerSettings {
    /// These settings, completed by those of `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            store: self.store.or(file.store),
            listen: self.listen.or(file.listen),
            token_file: self.token_file.or(file.token_file),
            insecure: self.insecure.or(file.insecure),
        }
    }
}
