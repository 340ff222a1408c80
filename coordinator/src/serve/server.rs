//! Binds, serves and stops a coordinator.

use std::{io, net::SocketAddr, time::Duration};

use futures::future::BoxFuture;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Server, server::TcpIncoming},
};
use whimbrel_core::Timing;
use whimbrel_proto::{DESCRIPTORS, MAX_MESSAGE, v1};
use whimbrel_store::{HostedBy, Store};

use crate::{
    driver::{
        Driver,
        input::{Input, Inputs},
    },
    open::submit::random_characters,
    serve::{
        services::Services,
        token::{Token, TokenInterceptor},
    },
};

/// How often a silent HTTP/2 connection is pinged, and how long an answer may take before the connection is dropped.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Once the driver has ended, open connections have this long to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store of its runs.
    pub store: Store,
    /// The address to listen on; port 0 takes a free port.
    pub listen: SocketAddr,
    /// The token that callers must send; `None` lets every caller in.
    pub token: Option<Token>,
    /// Whether to adopt the runs in the store that were submitted to a coordinator and go on. `whimbrel coordinator` does; the
    /// coordinator within `whimbrel run` does not, and marks its own run so that no other adopts it.
    pub adopt: bool,
    /// The timeouts by which nodes and workers count as lost.
    pub timing: Timing,
}

/// A coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen on the address.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The reflection service refuses the compiled `.proto` files.
    #[error("the compiled .proto files cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// No random characters for the coordinator's name.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A running coordinator failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server ended.
    #[error("the gRPC server ended: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The driver or the server panicked.
    #[error("a task of the coordinator failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The driver or the server ended although no one stopped it.
    #[error("the coordinator ended without being stopped")]
    Ended,
}

/// A running coordinator. Dropping it aborts its tasks; [`stop`](Self::stop) ends it in order.
#[derive(Debug)]
pub struct Coordinator {
    address: SocketAddr,
    inputs: Inputs,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), ServeError>>,
}

impl Coordinator {
    /// Binds and begins to serve. Called once by `whimbrel coordinator` and by `whimbrel run`.
    ///
    /// The future is boxed so that the server and the driver are compiled with this crate and not with each caller.
    pub fn start(settings: Settings) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(Self::bind_and_serve(settings))
    }

    async fn bind_and_serve(settings: Settings) -> Result<Self, StartError> {
        let Settings { store, listen, token, adopt, timing } = settings;
        let failed = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<v1::runs_server::RunsServer<Services>>().await;
        health.set_serving::<v1::agents_server::AgentsServer<Services>>().await;
        health.set_serving::<v1::workers_server::WorkersServer<Services>>().await;

        let (sender, receiver) = mpsc::unbounded_channel();
        let inputs = Inputs(sender);
        let hosted_by = if adopt { HostedBy::Service } else { HostedBy::Embedded };
        // Unique even among hosts with the same name and address.
        let (host, process, random) = (rustix::system::uname(), std::process::id(), random_characters()?);
        let host = host.nodename().to_string_lossy();
        let name = format!("{host} at {address} (process {process}, {random})");
        let driver = Driver::new(store, hosted_by, name, inputs.clone(), timing);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            driver.drive(receiver).await;
            Ok(())
        });

        let services = Services { inputs: inputs.clone() };
        let interceptor = TokenInterceptor(token);
        // The place for TLS: wrap the incoming streams.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let runs = v1::runs_server::RunsServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE);
        let agents =
            v1::agents_server::AgentsServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE);
        let workers = v1::workers_server::WorkersServer::new(services).max_decoding_message_size(MAX_MESSAGE);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(health_service)
            .add_service(reflection)
            .add_service(InterceptedService::new(runs, interceptor.clone()))
            .add_service(InterceptedService::new(agents, interceptor.clone()))
            .add_service(InterceptedService::new(workers, interceptor))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tasks.spawn(async move { Ok(server.await?) });
        tracing::info!(%address, "coordinator listens");
        Ok(Self { address, inputs, stop, tasks })
    }

    /// The address that it listens on, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the coordinator fails. Does not return otherwise.
    pub async fn failed(&mut self) -> ServeError {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(()))) | None => ServeError::Ended,
        }
    }

    /// Has every run save a checkpoint and stop so that another coordinator can adopt it, then ends. Takes up to four minutes.
    pub async fn stop(mut self) {
        if self.inputs.ask(Input::Shutdown).await.is_err() {
            tracing::error!("the driver had ended already; its runs may not have stopped in order");
        }
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, all).await.is_err() {
            tracing::debug!("connections were still open at the end");
        }
    }
}
