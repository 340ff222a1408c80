//! One attendance after another.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use whimbrel_client::{Address, ConnectError};
use whimbrel_proto::v1::{self, agent_command::Command, agent_message::Message};

use crate::{keeper::Keeper, settings::Settings};

/// Deadline of the coordinator's answer to a node that joins.
const ANSWER: Duration = Duration::from_secs(5);
/// How often the coordinator hears that the node lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A coordinator that says nothing for this long, though it says something every second, is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// Workers that are told to end have this long before they are killed.
const GRACE: Duration = Duration::from_secs(10);
/// The first new attempt to join waits this long, each further one twice as long, up to the last figure.
const REJOIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// An agent cannot join a coordinator, or lost it.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator does not let the node in.
    #[error("the coordinator at {address} does not let this node in: {}", status.message())]
    Refused {
        /// The address.
        address: Address,
        /// Its words.
        status: Box<Status>,
    },
    /// The connection was lost.
    #[error("the connection to the coordinator at {address} was lost: {reason}")]
    Lost {
        /// The address.
        address: Address,
        /// How.
        reason: String,
    },
}

/// Joins a node to a coordinator and keeps its workers until told to stop. A lost connection ends the node's workers,
/// since the coordinator has given them up, and is made anew; an error is returned only where the very first one could
/// not be made.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), AgentError> {
    let mut connected = open(&settings).await?;
    loop {
        let Err(error) = keep(&settings, connected, &stop).await else { return Ok(()) };
        tracing::warn!(%error, "the node's workers are ended, and it joins again");
        let mut wait = REJOIN.0;
        connected = loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(Instant::now() + wait) => {}
            }
            match open(&settings).await {
                Ok(connected) => break connected,
                Err(error) => tracing::warn!(%error, "trying again"),
            }
            wait = (wait * 2).min(REJOIN.1);
        };
    }
}

/// The two halves of an attendance.
struct Connected {
    messages: mpsc::UnboundedSender<v1::AgentMessage>,
    commands: Streaming<v1::AgentCommand>,
}

async fn open(settings: &Settings) -> Result<Connected, AgentError> {
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
    Ok(Connected { messages, commands })
}

/// Does what the coordinator says until told to stop, or until the connection is lost. Either way the node's processes
/// have ended when this returns.
async fn keep(settings: &Settings, connected: Connected, stop: &CancellationToken) -> Result<(), AgentError> {
    let Connected { messages, mut commands } = connected;
    let (told, mut to_tell) = mpsc::unbounded_channel();
    let mut keeper = Keeper::new(told);
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let lost = loop {
        let message = tokio::select! {
            command = commands.message() => match command {
                Ok(Some(command)) => {
                    heard = Instant::now();
                    obey(settings, &mut keeper, command);
                    continue;
                }
                Ok(None) => break "it closed the connection".to_owned(),
                Err(status) if status.code() == Code::Unknown => break "the connection broke".to_owned(),
                Err(status) => break status.message().to_owned(),
            },
            Some(message) = to_tell.recv() => message,
            () = keeper.tidy() => continue,
            _ = heartbeat.tick() => Message::Heartbeat(v1::AgentHeartbeat {}),
            () = sleep_until(heard + SILENCE) => break format!("nothing heard for {} s", SILENCE.as_secs()),
            () = stop.cancelled() => {
                // The coordinator hears how each of them ends, as far as it still listens.
                keeper.end_all(GRACE).await;
                while let Ok(message) = to_tell.try_recv() {
                    messages.send(v1::AgentMessage { message: Some(message) }).ok();
                }
                return Ok(());
            }
        };
        if messages.send(v1::AgentMessage { message: Some(message) }).is_err() {
            break "it takes no messages any more".to_owned();
        }
    };
    keeper.end_all(Duration::ZERO).await;
    Err(AgentError::Lost { address: settings.coordinator.address.clone(), reason: lost })
}

fn obey(settings: &Settings, keeper: &mut Keeper, command: v1::AgentCommand) {
    match command.command {
        Some(Command::Welcome(welcome)) => tracing::info!(node = welcome.node, "joined"),
        Some(Command::Heartbeat(_)) => {}
        Some(Command::Prepare(prepare)) => keeper.prepare(prepare, &settings.workdir),
        Some(Command::Start(start)) => {
            let environment = environment(settings, &start);
            keeper.start(start, &settings.workdir, environment);
        }
        Some(Command::Stop(stop)) => {
            keeper.stop(&stop.run, stop.worker, Duration::from_millis(stop.grace_ms))
        }
        None => tracing::warn!("the coordinator says something that this version does not know; ignored"),
    }
}

/// What a worker finds in its environment: who it is, and whom to call.
fn environment(settings: &Settings, start: &v1::StartWorker) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("WHIMBREL_COORDINATOR".to_owned(), settings.coordinator.address.to_string()),
        ("WHIMBREL_RUN".to_owned(), start.run.clone()),
        ("WHIMBREL_WORKER".to_owned(), start.worker.to_string()),
        ("WHIMBREL_ADVERTISE".to_owned(), settings.advertise.unwrap_or_else(|| facing(settings)).to_string()),
    ]);
    if let Some(token) = &settings.coordinator.token {
        environment.insert("WHIMBREL_TOKEN".to_owned(), token.clone());
    }
    environment
}

/// The address of this machine from which the coordinator is reached; nothing is sent to find out.
fn facing(settings: &Settings) -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(settings.coordinator.address.as_str())?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
