//! Our S3 server with a fault: it overwrites an object that a create must not replace.

use std::{net::SocketAddr, path::Path};

use super::{
    s3,
    server::{BUCKET, Server, Unavailable},
    xml_api::{Creates, XmlApi},
};
use crate::listener::Listener;

const NAME: &str = "lying-s3";

/// An S3 server that answers 200 to a create of an object that exists, and replaces the object, as Garage 2.5 and
/// s3rver do. Two coordinators could both commit there, so Whimbrel must refuse such a store.
#[derive(Debug)]
pub struct LyingS3 {
    listener: Listener,
}

impl LyingS3 {
    /// Starts it with a bucket that every client may use.
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
        let mut environment = s3::environment(address, "lying-key", "lying-secret");
        // The server has no bulk deletion.
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
