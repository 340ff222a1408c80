//! The coordinator and the agent of a run on one machine, in this process.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};
use whimbrel_agent::{AgentError, Stop};
use whimbrel_client::Access;
use whimbrel_coordinator::{Coordinator, Settings, Timing, Token};
use whimbrel_proto::with_causes;
use whimbrel_store::Store;

use crate::{commands::agent, exit::Failure};

/// Deadline of the agent for ending its workers and itself.
const AGENT_STOP: Duration = Duration::from_secs(15);

/// Deadline of the coordinator for killing a worker that has not ended in time.
const KILL: Duration = Duration::from_secs(5);
/// Workers that take longer to end are worth a line on the screen.
const MOMENT: Duration = Duration::from_secs(1);

/// A coordinator on a free port of loopback, and an agent that has joined it.
pub(super) struct Host {
    coordinator: Coordinator,
    /// With a token, since other users of this machine can connect to loopback too.
    access: Access,
    agent: JoinSet<Result<(), AgentError>>,
    agent_stop: Stop,
}

/// The agent ended although it was not stopped.
#[derive(Debug, thiserror::Error)]
enum AgentEnded {
    #[error("the agent of this machine cannot go on")]
    Error(#[source] AgentError),
    #[error("the agent of this machine failed; this is a defect of Whimbrel")]
    Task(#[source] tokio::task::JoinError),
    #[error("the agent of this machine ended by itself")]
    Unasked,
}

impl Host {
    /// Starts both. The agent offers `slots` slots, and starts workers in the working directory.
    pub(super) async fn start(store: Store, slots: u32) -> Result<Self, Failure> {
        let workdir = env::current_dir().map_err(Failure::unexpected)?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let token = Token::random().map_err(Failure::unexpected)?;
        let secret = Some(token.reveal().to_owned());
        let settings =
            Settings { store, listen, token: Some(token), adopt: false, timing: Timing::default() };
        let coordinator = Coordinator::start(settings).await.map_err(Failure::unexpected)?;
        let agent_stop = Stop::default();
        let access = Access { address: coordinator.address().into(), token: secret };
        let settings = agent::embedded(access.clone(), slots, &workdir);
        let mut agent = JoinSet::new();
        agent.spawn(whimbrel_agent::run(settings, agent_stop.clone()));
        Ok(Self { coordinator, access, agent, agent_stop })
    }

    /// How to reach the coordinator.
    pub(super) fn access(&self) -> Access {
        self.access.clone()
    }

    /// Waits until the coordinator or the agent fails. Dropping the future loses nothing.
    pub(super) async fn failed(&mut self) -> Failure {
        tokio::select! {
            error = self.coordinator.failed() => Failure::unexpected(error),
            ended = self.agent.join_next() => Failure::unexpected(match ended {
                Some(Ok(Err(error))) => AgentEnded::Error(error),
                Some(Err(error)) => AgentEnded::Task(error),
                Some(Ok(Ok(()))) | None => AgentEnded::Unasked,
            }),
        }
    }

    /// Ends the agent and then the coordinator, after the run has ended: the coordinator finishes its replicas. The
    /// workers have `leave_timeout` to end by themselves, then the coordinator kills them; `hurried` ends them at once. If
    /// they take more than a moment, `slow` is called.
    pub(super) async fn stop(
        mut self,
        leave_timeout: Duration,
        hurried: impl Future<Output = ()>,
        slow: impl FnOnce(),
    ) {
        self.agent_stop.when_idle.cancel();
        let ended = if let Ok(ended) = timeout(MOMENT, self.agent.join_next()).await {
            ended
        } else {
            slow();
            tokio::select! {
                ended = timeout(leave_timeout + KILL, self.agent.join_next()) => ended.ok().flatten(),
                () = hurried => None,
            }
        };
        match ended {
            Some(ended) => report(ended),
            None => self.stop_agent().await,
        }
        self.coordinator.stop().await;
    }

    /// Ends the workers and drops the coordinator. It writes nothing more to the run log.
    pub(super) async fn abort(mut self) {
        self.stop_agent().await;
    }

    /// Ends the agent, which ends its workers first.
    async fn stop_agent(&mut self) {
        self.agent_stop.now.cancel();
        match timeout(AGENT_STOP, self.agent.join_next()).await {
            Ok(Some(ended)) => report(ended),
            Ok(None) => {}
            Err(_) => tracing::warn!("the agent did not end its workers within {} s", AGENT_STOP.as_secs()),
        }
    }
}

/// Logs an agent that did not end well.
fn report(ended: Result<Result<(), AgentError>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = with_causes(&error), "the agent ended with an error"),
        Err(error) => tracing::warn!(%error, "the task of the agent failed"),
    }
}
