//! Our server of Google Cloud Storage's XML API, for tests of the GCS client.

use std::{net::SocketAddr, path::Path, sync::Arc};

use super::{
    server::{BUCKET, Server, Unavailable},
    xml_api::{Creates, Right, XmlApi},
};
use crate::listener::Listener;

const NAME: &str = "gcs";

/// The part of Google Cloud Storage's XML API that our client uses, over a bucket in memory.
///
/// We wrote it from Google's documentation, because no available server implements that API. A test against it checks
/// our client, not Google's service.
#[derive(Debug)]
pub struct GcsServer {
    listener: Listener,
    api: Arc<XmlApi>,
    token: Option<String>,
}

impl GcsServer {
    /// Starts it with a bucket that every client may use.
    pub fn start() -> Result<Self, Unavailable> {
        let api = XmlApi::new(Creates::Refused);
        let listener = Arc::clone(&api)
            .listen(NAME)
            .map_err(|error| Unavailable { server: NAME, reason: error.to_string() })?;
        Ok(Self { listener, api, token: None })
    }

    /// Starts it with a bucket that only clients with this bearer token may use. [`environment`](Server::environment)
    /// has the token.
    pub fn start_for(token: &str) -> Result<Self, Unavailable> {
        let server = Self::start()?;
        server.api.require_token(token);
        Ok(Self { token: Some(token.to_owned()), ..server })
    }

    /// Answers 403 to every later request that needs the right.
    pub fn deny(&self, right: Right) {
        self.api.deny(right);
    }
}

impl Server for GcsServer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("gs://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        let url = format!("http://{address}");
        match &self.token {
            Some(token) => {
                vec![("GOOGLE_BASE_URL", url), ("GOOGLE_BEARER_TOKEN", token.clone())]
            }
            None => {
                let key = serde_json::json!({
                    "gcs_base_url": url,
                    "disable_oauth": true,
                    "client_email": "",
                    "private_key": "",
                    "private_key_id": "",
                });
                vec![("GOOGLE_SERVICE_ACCOUNT_KEY", key.to_string())]
            }
        }
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
