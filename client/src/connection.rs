//! A connection to a coordinator: the channel, the token on every call, and the errors of connecting.

use std::{fmt, pin::Pin, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use whimbrel_proto::{
    MAX_MESSAGE,
    v1::{agents_client::AgentsClient, runs_client::RunsClient, workers_client::WorkersClient},
};

use crate::Address;

/// Deadline of a TCP connect.
const CONNECT: Duration = Duration::from_secs(10);
/// An HTTP/2 ping is sent after this long without traffic, and its answer has this long to come. A broken connection
/// is noticed within twice this time, also while no call is open.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What a program must know to call a coordinator.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Where the coordinator listens.
    pub address: Address,
    /// The token to send with every call; `None` where the coordinator does not ask for one.
    pub token: Option<String>,
}

/// A coordinator cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The token cannot be an HTTP header.
    #[error(
        "the token for the coordinator at {address} holds characters that cannot be sent; check for a damaged token file"
    )]
    Token {
        /// The coordinator.
        address: Address,
        /// What the header's type reports.
        source: InvalidMetadataValue,
    },
    /// No TCP connection could be made within the deadline.
    #[error("cannot reach a coordinator at {address}; check that it runs and that the address is right")]
    Unreachable {
        /// The coordinator.
        address: Address,
        /// Why the connection failed.
        source: tonic::transport::Error,
    },
}

impl Access {
    /// Connects to the coordinator. The TCP connect takes at most 10 s. The token is checked by the coordinator at the
    /// first call, not here.
    ///
    /// The future is boxed so that the HTTP/2 client is compiled with this crate and not with each caller.
    pub fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Connection, ConnectError>> + Send + '_>> {
        Box::pin(self.open())
    }

    async fn open(&self) -> Result<Connection, ConnectError> {
        let bearer = Bearer::new(self.token.as_deref());
        let bearer =
            bearer.map_err(|source| ConnectError::Token { address: self.address.clone(), source })?;
        let unreachable = |source| ConnectError::Unreachable { address: self.address.clone(), source };
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(unreachable)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(unreachable)?;
        Ok(Connection { service: InterceptedService::new(channel, bearer) })
    }
}

impl fmt::Debug for Access {
    /// Everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The channel of a [`Connection`], with the token on every call.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// An open connection to a coordinator. Cheap to clone; clones share the channel.
#[derive(Clone, Debug)]
pub struct Connection {
    service: Authorized,
}

impl Connection {
    /// The client of the service that submits, watches and ends runs.
    pub fn runs(&self) -> RunsClient<Authorized> {
        RunsClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The client of the service that agents call.
    pub fn agents(&self) -> AgentsClient<Authorized> {
        AgentsClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The client of the service that workers call.
    pub fn workers(&self) -> WorkersClient<Authorized> {
        WorkersClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// Adds `authorization: Bearer <token>` to every call, if there is a token.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(token: Option<&str>) -> Result<Self, InvalidMetadataValue> {
        let Some(token) = token else { return Ok(Self(None)) };
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
        // Keeps the token out of debug output.
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_call_carries_the_token_and_debug_output_does_not() {
        let mut bearer = Bearer::new(Some("0123456789abcdef")).unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer 0123456789abcdef");
        let access = Access { address: Address::default(), token: Some("0123456789abcdef".into()) };
        assert!(!format!("{bearer:?} {access:?}").contains("0123456789abcdef"));

        let request = Bearer::new(None).unwrap().call(Request::new(())).unwrap();
        assert!(request.metadata().is_empty());
    }

    #[tokio::test]
    async fn errors_name_the_address() {
        // A port that was free a moment ago.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address: Address = listener.local_addr().unwrap().into();
        drop(listener);
        let access =
            |token: Option<&str>| Access { address: address.clone(), token: token.map(str::to_owned) };
        let refused = access(None).connect().await.unwrap_err();
        assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused:?}");
        let malformed = access(Some("two\nlines")).connect().await.unwrap_err();
        assert!(matches!(malformed, ConnectError::Token { .. }), "{malformed:?}");
        for error in [refused, malformed] {
            assert!(error.to_string().contains(&format!("coordinator at {address}")), "{error}");
        }
    }
}
