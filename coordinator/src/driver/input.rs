//! Everything that reaches the driver.

use tokio::sync::{broadcast, mpsc, oneshot};
use tonic::Status;
use whimbrel_core::RunEvent;
use whimbrel_plan::{NodeId, RunId, WorkerId};
use whimbrel_proto::v1;

use crate::{open::take_over::{Opened, SubmitError}, record::output_writer::Printed};

/// The way to the driver.
#[derive(Clone, Debug)]
pub(crate) struct Inputs(pub(crate) mpsc::UnboundedSender<Input>);

impl Inputs {
    /// Hands something to the driver. Once it has ended there is nobody to tell, and nothing to do about it.
    pub(crate) fn send(&self, input: Input) {
        if self.0.send(input).is_err() {
            tracing::debug!("the driver has ended; input dropped");
        }
    }

    /// Asks the driver, and waits for its answer.
    pub(crate) async fn ask<A>(
        &self,
        question: impl FnOnce(oneshot::Sender<A>) -> Input,
    ) -> Result<A, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply));
        answer.await.map_err(|_| Status::unavailable("the coordinator is shutting down"))
    }
}

/// What to do with an answer.
pub(crate) type Reply<A> = oneshot::Sender<A>;

/// The driver's half of an agent's attendance.
pub(crate) type NodeLink = mpsc::Sender<v1::AgentCommand>;

/// The driver's half of a worker's attendance.
pub(crate) type WorkerLink = mpsc::Sender<v1::WorkerCommand>;

/// Everything that reaches the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// A client submits or resumes a run.
    Submit(v1::submit_request::What, Reply<Result<v1::SubmitResponse, SubmitError>>),
    /// A run's term is taken, or could not be; answered to the client, if one asked. The run is named if it was in the
    /// store before.
    Opened(
        Option<RunId>,
        Box<Result<Opened, SubmitError>>,
        Option<Reply<Result<v1::SubmitResponse, SubmitError>>>,
    ),
    /// The log of every run in the store has been read, as far as the store answered.
    LookedThrough,
    /// A run that goes on was found in the store, and stands like this until it is taken up. Is it to be?
    TakingUp(Box<v1::RunStatus>, Reply<bool>),
    /// A run was found in the store that needs no coordinator any more, or has another.
    Found(Box<v1::RunStatus>),
    /// A run that was to be taken up could not be.
    NotTakenUp(Box<v1::RunStatus>),
    /// A client wants to know how all runs stand.
    List(Reply<Vec<v1::RunStatus>>),
    /// A client wants to know how a run stands.
    Get(RunId, Reply<Option<v1::RunStatus>>),
    /// A client ends a run.
    Cancel(RunId, Reply<Result<(), Status>>),
    /// A client stops a run.
    Stop(RunId, Reply<Result<(), Status>>),
    /// A client watches a run: how it stands, and what comes.
    Watch(RunId, Reply<Option<(Vec<v1::RunEvent>, broadcast::Receiver<v1::RunEvent>)>>),
    /// A client reads what a run's workers print.
    Logs(RunId, Reply<Option<Printed>>),
    /// An agent joins its node.
    NodeJoined(v1::Join, NodeLink, Reply<NodeId>),
    /// An agent says something.
    FromNode(NodeId, v1::agent_message::Message),
    /// An agent's attendance has ended.
    NodeGone(NodeId, String),
    /// A worker calls in.
    WorkerCalled(RunId, WorkerId, WorkerLink, Reply<Result<v1::Welcome, Status>>),
    /// A worker says something.
    FromWorker(RunId, WorkerId, v1::worker_message::Message),
    /// A worker's attendance has ended.
    WorkerGone(RunId, WorkerId, String),
    /// What one of a run's tasks did, failed to do, or found out under that epoch; of no meaning under a later one.
    OfTerm(RunId, u64, RunEvent),
    /// Watchers of a run are to be told of this, if it is still held under that epoch.
    Tell(RunId, u64, v1::run_event::Event),
    /// The run's end is written, and its replicas are waited for.
    Parting(RunId, u64),
    /// A run's recorder has committed a checkpoint under that epoch.
    Committed(RunId, u64, v1::CheckpointEvent),
    /// Stop all runs where they can be taken up again, then answer and end.
    Shutdown(Reply<()>),
}

impl Input {
    /// Whether it is a client's question, and the client has gone: then nothing is to come of it.
    pub(crate) fn is_forsaken(&self) -> bool {
        match self {
            Self::Submit(_, reply) => reply.is_closed(),
            Self::TakingUp(_, reply) => reply.is_closed(),
            Self::List(reply) => reply.is_closed(),
            Self::Get(_, reply) => reply.is_closed(),
            Self::Cancel(_, reply) | Self::Stop(_, reply) => reply.is_closed(),
            Self::Watch(_, reply) => reply.is_closed(),
            Self::Logs(_, reply) => reply.is_closed(),
            _ => false,
        }
    }
}
