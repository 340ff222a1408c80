//! A server of one process, as moto and azurite are: starts it on a free port and waits until it answers.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::process::{Process, answers_http, free_ports};

/// A server that is one process with its own folder.
#[derive(Debug)]
pub(super) struct SingleProcess {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    pub(super) folder: TempDir,
}

impl SingleProcess {
    /// Starts the command that `command` returns for a port and a folder, waits until the server answers, and calls
    /// `set_up`, which creates the bucket. Another program may take the port first, so a failure is retried once.
    pub(super) fn start(
        name: &str,
        command: impl Fn(u16, &Path) -> Command,
        set_up: impl Fn(SocketAddr) -> Result<(), String>,
    ) -> Result<Self, String> {
        let launch = || {
            let failed = |error: io::Error| error.to_string();
            let folder = TempDir::with_prefix(format!("whimbrel-{name}-")).map_err(failed)?;
            let [port] = free_ports().map_err(failed)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let command = command(port, folder.path());
            let mut process = Process::spawn(name, &command, folder.path()).map_err(failed)?;
            process.wait_until(Duration::from_secs(60), || answers_http(address))?;
            set_up(address)?;
            Ok(Self { process, address, folder })
        };
        launch().or_else(|_: String| launch())
    }
}
