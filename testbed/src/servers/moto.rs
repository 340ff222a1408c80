//! moto, an S3 server in Python that keeps objects in memory.

use std::{net::SocketAddr, path::Path, process::Command};

use super::{
    s3,
    server::{BUCKET, Server, Unavailable},
    single_process::SingleProcess,
};
use crate::install::{find, from_pypi};

const NAME: &str = "moto";
const KEYS: (&str, &str) = ("moto-key", "moto-secret");

/// moto's server. It starts quickly, checks no credentials, and serves reads at 13 MB/s, so it is for small objects.
#[derive(Debug)]
pub struct Moto {
    server: SingleProcess,
}

impl Moto {
    /// Starts it, and creates the bucket. Installs it from PyPI first if it is missing.
    pub fn start() -> Result<Self, Unavailable> {
        let unavailable = |reason| Unavailable { server: NAME, reason };
        let program = match find("moto_server") {
            Some(program) => program,
            None => from_pypi("moto", "server", "5.2.5").map_err(unavailable)?.join("bin/moto_server"),
        };
        let command = |port: u16, _: &Path| {
            let mut command = Command::new(&program);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        };
        let set_up = |address| s3::create_bucket(address, KEYS);
        let server = SingleProcess::start(NAME, command, set_up).map_err(unavailable)?;
        Ok(Self { server })
    }
}

impl Server for Moto {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.server.address
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        s3::environment(address, KEYS.0, KEYS.1)
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.server.process.pid()]
    }

    fn data(&self) -> Option<&Path> {
        // The objects are in the process's memory; the folder holds its log.
        Some(self.server.folder.path())
    }

    fn kill(&mut self) {
        self.server.process.kill();
    }
}
