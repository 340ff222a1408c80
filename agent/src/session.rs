//! Sessions with the coordinator, one after another: join, execute commands, send reports, join again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use whimbrel_client::{Address, ConnectError};
use whimbrel_proto::v1::{self, agent_command::Command, agent_message::Message};

use crate::{settings::Settings, supervisor::Supervisor};

/// Deadline of the coordinator's answer to a node that joins.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two heartbeats to the coordinator.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The coordinator sends something every second. After this long without a message it counts as lost.
const SILENCE: Duration = Duration::from_secs(15);
/// Between SIGTERM and SIGKILL when the agent ends its workers.
const GRACE: Duration = Duration::from_secs(10);
/// The wait before the first new attempt to join, and the longest wait. Each wait is twice the one before.
const REJOIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// An agent cannot join a coordinator, or lost it.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator refused the node.
    #[error("the coordinator at {address} refused this node: {}", status.message())]
    Refused {
        /// The address.
        address: Address,
        /// The answer.
        status: Box<Status>,
    },
    /// The connection was lost.
    #[error("the connection to the coordinator at {address} was lost: {reason}")]
    Lost {
        /// The address.
        address: Address,
        /// How it was lost.
        reason: String,
    },
}

/// Ends an agent.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Ends its processes, and then the agent.
    pub now: CancellationToken,
    /// Ends the agent as soon as it has no process: the coordinator ends them.
    pub when_idle: CancellationToken,
}

impl Stop {
    /// Waits until the agent is to end, given whether it has no process.
    async fn due(&self, is_idle: bool) {
        tokio::select! {
            () = self.now.cancelled() => {}
            () = self.when_idle.cancelled(), if is_idle => {}
        }
    }
}

/// Joins a node to a coordinator, and starts and ends workers on its commands, until `stop`.
///
/// A lost connection ends the node's workers, since the coordinator has given them up; then the node joins again. An error
/// is returned only if the first connection fails.
///
/// The future is boxed so that it is compiled with this crate and not with each caller.
pub fn run(settings: Settings, stop: Stop) -> BoxFuture<'static, Result<(), AgentError>> {
    Box::pin(run_sessions(settings, stop))
}

async fn run_sessions(settings: Settings, stop: Stop) -> Result<(), AgentError> {
    let mut stream = open(&settings).await?;
    loop {
        let Err(error) = serve(&settings, stream, &stop).await else { return Ok(()) };
        tracing::warn!(%error, "the connection was lost: the node has ended its workers and joins again");
        let mut wait = REJOIN.0;
        stream = loop {
            tokio::select! {
                // A lost connection has ended the processes.
                () = stop.due(true) => return Ok(()),
                () = sleep_until(Instant::now() + wait) => {}
            }
            match open(&settings).await {
                Ok(stream) => break stream,
                Err(error) => tracing::warn!(%error, "cannot join; trying again"),
            }
            wait = (wait * 2).min(REJOIN.1);
        };
    }
}

/// The two directions of the stream to the coordinator.
struct Stream {
    messages: mpsc::UnboundedSender<v1::AgentMessage>,
    commands: Streaming<v1::AgentCommand>,
}

/// Connects and joins.
async fn open(settings: &Settings) -> Result<Stream, AgentError> {
    let connection = settings.coordinator.connect().await?;
    let (messages, outbound) = mpsc::unbounded_channel();
    let join = v1::AgentMessage { message: Some(Message::Join(settings.join())) };
    // The receiver is right here.
    messages.send(join).ok();
    let mut client = connection.agents();
    let answer = timeout(ANSWER, client.connect(UnboundedReceiverStream::new(outbound))).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")));
    let address = settings.coordinator.address.clone();
    let commands =
        answer.map_err(|status| AgentError::Refused { address, status: Box::new(status) })?.into_inner();
    Ok(Stream { messages, commands })
}

/// Executes the coordinator's commands until `stop` or until the connection is lost. In both cases the node's processes
/// have ended when this returns.
async fn serve(settings: &Settings, stream: Stream, stop: &Stop) -> Result<(), AgentError> {
    let Stream { messages, mut commands } = stream;
    let (reports, mut to_send) = mpsc::unbounded_channel();
    let mut supervisor = Supervisor::new(reports);
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_message = Instant::now();
    let lost = loop {
        let is_idle = supervisor.is_idle();
        let message = tokio::select! {
            command = commands.message() => match command {
                Ok(Some(command)) => {
                    last_message = Instant::now();
                    execute(settings, &mut supervisor, command);
                    continue;
                }
                Ok(None) => break "it closed the connection".to_owned(),
                Err(status) if status.code() == Code::Unknown => break "the connection broke".to_owned(),
                Err(status) => break status.message().to_owned(),
            },
            Some(message) = to_send.recv() => message,
            () = supervisor.reap() => continue,
            _ = heartbeat.tick() => Message::Heartbeat(v1::AgentHeartbeat {}),
            () = sleep_until(last_message + SILENCE) => break format!("no message for {} s", SILENCE.as_secs()),
            () = stop.due(is_idle) => {
                // Reports how each process ended, if the coordinator still reads.
                supervisor.end_all(GRACE).await;
                while let Ok(message) = to_send.try_recv() {
                    messages.send(v1::AgentMessage { message: Some(message) }).ok();
                }
                return Ok(());
            }
        };
        if messages.send(v1::AgentMessage { message: Some(message) }).is_err() {
            break "it no longer takes messages".to_owned();
        }
    };
    supervisor.end_all(Duration::ZERO).await;
    Err(AgentError::Lost { address: settings.coordinator.address.clone(), reason: lost })
}

fn execute(settings: &Settings, supervisor: &mut Supervisor, command: v1::AgentCommand) {
    match command.command {
        Some(Command::Welcome(welcome)) => tracing::info!(node = welcome.node, "joined"),
        Some(Command::Heartbeat(_)) => {}
        Some(Command::Prepare(prepare)) => supervisor.prepare(prepare, &settings.workdir),
        Some(Command::Start(start)) => {
            let environment = environment(settings, &start);
            supervisor.start(start, &settings.workdir, environment);
        }
        Some(Command::Stop(stop)) => {
            supervisor.stop(&stop.run, stop.worker, Duration::from_millis(stop.grace_ms))
        }
        None => tracing::warn!("ignoring a command of the coordinator that this version does not know"),
    }
}

/// The environment variables by which a worker knows its run, its number and its coordinator.
fn environment(settings: &Settings, start: &v1::StartWorker) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("WHIMBREL_COORDINATOR".to_owned(), settings.coordinator.address.to_string()),
        ("WHIMBREL_RUN".to_owned(), start.run.clone()),
        ("WHIMBREL_WORKER".to_owned(), start.worker.to_string()),
        (
            "WHIMBREL_ADVERTISE".to_owned(),
            settings.advertise.unwrap_or_else(|| local_address(settings)).to_string(),
        ),
    ]);
    if let Some(token) = &settings.coordinator.token {
        environment.insert("WHIMBREL_TOKEN".to_owned(), token.clone());
    }
    environment
}

/// The address of this machine from which it reaches the coordinator. Asks the routing table; sends nothing.
fn local_address(settings: &Settings) -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(settings.coordinator.address.as_str())?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
