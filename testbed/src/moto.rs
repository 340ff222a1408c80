//! moto's S3 server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use http::Method;
use tempfile::TempDir;

use crate::{
    install::{find, from_pypi},
    process::{Process, answers_http, free_ports},
    radosgw::s3_environment,
    server::{BUCKET, Server, Unavailable},
    signed,
};

const NAME: &str = "moto";
const KEYS: (&str, &str) = ("moto-key", "moto-secret");

/// moto's server: S3 in memory, quick to start. It checks no credentials and reads out 13 MB/s: for small objects.
#[derive(Debug)]
pub struct Moto {
    process: Process,
    address: SocketAddr,
    folder: TempDir,
}

impl Moto {
    /// Installs it if need be, starts it, and makes the bucket.
    pub fn start() -> Result<Self, Unavailable> {
        let unavailable = |reason| Unavailable { server: NAME, reason };
        let program = match find("moto_server") {
            Some(program) => program,
            None => from_pypi("moto", "server", "5.2.5").map_err(unavailable)?.join("bin/moto_server"),
        };
        let launch = || Self::launch(&program);
        launch().or_else(|_| launch()).map_err(unavailable)
    }

    fn launch(program: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let folder = TempDir::with_prefix("whimbrel-moto-").map_err(failed)?;
        let [port] = free_ports().map_err(failed)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut process = Process::spawn(NAME, &command, folder.path()).map_err(failed)?;
        process.wait_until(Duration::from_secs(60), || answers_http(address))?;
        let bucket = format!("http://{address}/{BUCKET}");
        signed::s3(Method::PUT, &bucket, "", KEYS).map_err(|error| error.to_string())?;
        Ok(Self { process, address, folder })
    }
}

impl Server for Moto {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        s3_environment(address, KEYS.0, KEYS.1)
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.pid()]
    }

    fn data(&self) -> Option<&Path> {
        // Its objects are in its memory; this holds its log.
        Some(self.folder.path())
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}
