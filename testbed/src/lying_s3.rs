//! An S3 server that cannot hold a run log.

use std::{net::SocketAddr, path::Path};

use crate::{
    listener::Listener,
    radosgw::s3_environment,
    server::{BUCKET, Server, Unavailable},
    xml_api::{Creates, XmlApi},
};

const NAME: &str = "lying-s3";

/// An S3 server that answers 200 to a create of what exists, and replaces it, as Garage 2.5 and s3rver do. Two
/// coordinators could both commit there, so it has to be refused.
#[derive(Debug)]
pub struct LyingS3 {
    listener: Listener,
}

impl LyingS3 {
    /// Starts it, with a bucket that anyone may use.
    pub fn start() -> Result<Self, Unavailable> {
        let listener = XmlApi::new(Creates::Overwrite)
            .listen(NAME)
            .map_err(|error| Unavailable { server: NAME, reason: error.to_string() })?;
        Ok(Self { listener })
    }
}

impl Server for LyingS3 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        let mut environment = s3_environment(address, "lying-key", "lying-secret");
        // It has no bulk deletion.
        environment.push(("AWS_DISABLE_BULK_DELETE", "true".to_owned()));
        environment
    }

    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }

    fn data(&self) -> Option<&Path> {
        None
    }

    fn kill(&mut self) {
        self.listener.stop();
    }
}
