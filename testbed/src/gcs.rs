//! A server of Google Cloud Storage's XML API.

use std::{net::SocketAddr, path::Path, sync::Arc};

use crate::{
    listener::Listener,
    server::{BUCKET, Server, Unavailable},
    xml_api::{Creates, Right, XmlApi},
};

const NAME: &str = "gcs";

/// Google Cloud Storage's XML API, as much of it as our client uses, over a bucket in memory.
///
/// It is ours, written from Google's documentation, since no server to be had speaks that API: what passes against it
/// proves our client, and nothing about Google's service.
#[derive(Debug)]
pub struct GcsServer {
    listener: Listener,
    api: Arc<XmlApi>,
    token: Option<String>,
}

impl GcsServer {
    /// Starts it, with a bucket that anyone may use.
    pub fn start() -> Result<Self, Unavailable> {
        let api = XmlApi::new(Creates::Refused);
        let listener = Arc::clone(&api)
            .listen(NAME)
            .map_err(|error| Unavailable { server: NAME, reason: error.to_string() })?;
        Ok(Self { listener, api, token: None })
    }

    /// Starts it for those only who send `token`, as [`environment`](Server::environment) does.
    pub fn start_for(token: &str) -> Result<Self, Unavailable> {
        let server = Self::start()?;
        server.api.require_token(token);
        Ok(Self { token: Some(token.to_owned()), ..server })
    }

    /// From here on, answers 403 to what needs the right.
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
