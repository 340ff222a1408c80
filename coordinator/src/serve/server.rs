//! Binding, serving and stopping.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Server, server::TcpIncoming},
};
use whimbrel_core::Timing;
use whimbrel_proto::{DESCRIPTORS, MAX_MESSAGE, v1};
use whimbrel_store::{Mode, Store};

use crate::{driver::{input::{Input, Inputs}, Driver}, open::take_over::random_word, serve::{services::Services, token::{Token, TokenInterceptor}}};

/// Connections that are silent on the level of HTTP/2 are probed this often, and dropped when they do not answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Once all runs are let go of, open connections have this long to end.
const LINGER: Duration = Duration::from_secs(2);

/// What a coordinator is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its runs are.
    pub store: Store,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What callers must show, if anything.
    pub token: Option<Token>,
    /// Whether it takes up the runs that were submitted to a coordinator over this store and have not ended. One
    /// embedded in `whimbrel run` does not, and marks its own run so that no other does either.
    pub adopt: bool,
    /// How long it waits for what.
    pub timing: Timing,
}

/// A coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The reflection service does not accept the protocol's description.
    #[error("the protocol's description is damaged: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A name cannot be made.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A coordinator that started has come to grief.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server ended.
    #[error("the gRPC server ended: {0}")]
    Server(#[from] tonic::transport::Error),
    /// One of the two tasks panicked.
    #[error("a task of the coordinator came to grief: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A task ended that should not have.
    #[error("the coordinator ended by itself")]
    Ended,
}

/// A coordinator at work.
#[derive(Debug)]
pub struct Coordinator {
    address: SocketAddr,
    inputs: Inputs,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), ServeError>>,
}

impl Coordinator {
    /// Binds and begins to serve.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
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
        let submitter = if adopt { Mode::Service } else { Mode::Embedded };
        // It tells coordinators apart, even those of hosts with one name that listen alike.
        let (host, process, random) = (rustix::system::uname(), std::process::id(), random_word()?);
        let host = host.nodename().to_string_lossy();
        let name = format!("{host} at {address} (process {process}, {random})");
        let driver = Driver::new(store, submitter, name, inputs.clone(), timing);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            driver.drive(receiver).await;
            Ok(())
        });

        let services = Services { inputs: inputs.clone() };
        let door = TokenInterceptor(token);
        // TLS, when it comes, has its one place here: wrap the incoming streams.
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
            .add_service(InterceptedService::new(runs, door.clone()))
            .add_service(InterceptedService::new(agents, door.clone()))
            .add_service(InterceptedService::new(workers, door))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tasks.spawn(async move { Ok(server.await?) });
        tracing::info!(%address, "coordinator listens");
        Ok(Self { address, inputs, stop, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it comes to grief.
    pub async fn failed(&mut self) -> ServeError {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(()))) | None => ServeError::Ended,
        }
    }

    /// Has every run save a checkpoint and stop where another coordinator can take it up, then ends.
    pub async fn stop(mut self) {
        if self.inputs.ask(Input::Shutdown).await.is_err() {
            tracing::error!("the coordinator had ended already");
        }
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LINGER, all).await.is_err() {
            tracing::debug!("connections were still open at the end");
        }
    }
}
