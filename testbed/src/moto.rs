//! moto's S3 server.

use std::{net::SocketAddr, path::Path, process::Command};

use http::Method;

use crate::{
    install::{find, from_pypi},
    process::Running,
    radosgw::s3_environment,
    server::{BUCKET, Server, Unavailable},
    signed,
};

const NAME: &str = "moto";
const KEYS: (&str, &str) = ("moto-key", "moto-secret");

/// moto's server: S3 in memory, quick to start. It checks no credentials and reads out 13 MB/s: for small objects.
#[derive(Debug)]
pub struct Moto {
    running: Running,
}

impl Moto {
    /// Installs it if need be, starts it, and makes the bucket.
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
        let set_up = |address| {
            let bucket = format!("http://{address}/{BUCKET}");
            signed::s3(Method::PUT, &bucket, "", KEYS).map_err(|error| error.to_string())
        };
        let running = Running::start(NAME, command, set_up).map_err(unavailable)?;
        Ok(Self { running })
    }
}

impl Server for Moto {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.running.address
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        s3_environment(address, KEYS.0, KEYS.1)
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.running.process.pid()]
    }

    fn data(&self) -> Option<&Path> {
        // Its objects are in its memory; this holds its log.
        Some(self.running.folder.path())
    }

    fn kill(&mut self) {
        self.running.process.kill();
    }
}
