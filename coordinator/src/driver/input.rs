//! Everything that reaches the driver from outside, and the handle that sends it.

use tokio::sync::{broadcast, mpsc, oneshot};
use tonic::Status;
use whimbrel_plan::{NodeId, RunId, WorkerId};
use whimbrel_proto::v1;

use crate::{
    open::{OpenedRun, adopt::Discovery, submit_error::SubmitError},
    record::output_writer::OutputReader,
};

/// Sends inputs to the driver. The gRPC services and their streams hold it.
#[derive(Clone, Debug)]
pub(crate) struct Inputs(pub(crate) mpsc::UnboundedSender<Input>);

impl Inputs {
    /// Sends an input. Without effect once the driver has ended.
    pub(crate) fn send(&self, input: Input) {
        if self.0.send(input).is_err() {
            tracing::debug!("the driver has ended; an input is dropped");
        }
    }

    /// Sends a question and waits for the answer. UNAVAILABLE if the driver has ended. No deadline of its own: the caller's
    /// call has one.
    pub(crate) async fn ask<A>(&self, question: impl FnOnce(Reply<A>) -> Input) -> Result<A, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply));
        answer.await.map_err(|_| Status::unavailable("the coordinator is shutting down"))
    }
}

/// Where the driver sends an answer.
pub(crate) type Reply<A> = oneshot::Sender<A>;

/// The answer to a `Submit` call.
pub(crate) type Submitted = Result<v1::SubmitResponse, SubmitError>;

/// The answer to a `Watch` call: the first events, and a receiver of those that follow.
pub(crate) type Watched = (Vec<v1::RunEvent>, broadcast::Receiver<v1::RunEvent>);

/// Sends commands to an agent.
pub(crate) type AgentSender = mpsc::Sender<v1::AgentCommand>;

/// Sends commands to a worker.
pub(crate) type WorkerSender = mpsc::Sender<v1::WorkerCommand>;

/// Something that reaches the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// A client submits or resumes a run.
    Submit(v1::submit_request::What, Reply<Submitted>),
    /// A run that a client submitted or resumed is opened, or could not be. The run is named if it is resumed.
    Opened(Option<RunId>, Box<Result<OpenedRun, SubmitError>>, Reply<Submitted>),
    /// A run whose term a panic has ended is opened again, or could not be.
    Reopened(RunId, Box<Result<OpenedRun, SubmitError>>),
    /// Adoption found a run in the store, or adopted one.
    Discovered(Discovery),
    /// A client asks for the status of every run.
    List(Reply<Vec<v1::RunStatus>>),
    /// A client asks for the status of a run.
    Get(RunId, Reply<Option<v1::RunStatus>>),
    /// A client ends a run for good.
    Cancel(RunId, Reply<Result<(), Status>>),
    /// A client stops a run.
    Stop(RunId, Reply<Result<(), Status>>),
    /// A client watches a run.
    Watch(RunId, Reply<Option<Watched>>),
    /// A client reads the output of a run's workers.
    Logs(RunId, Reply<Option<OutputReader>>),
    /// An agent connects and describes its node.
    NodeJoined(v1::Join, AgentSender, Reply<NodeId>),
    /// An agent sends a message.
    FromNode(NodeId, v1::agent_message::Message),
    /// An agent's stream has ended; why.
    NodeDisconnected(NodeId, String),
    /// A worker connects.
    WorkerConnected(RunId, WorkerId, WorkerSender, Reply<Result<v1::Welcome, Status>>),
    /// A worker sends a message.
    FromWorker(RunId, WorkerId, v1::worker_message::Message),
    /// A worker's stream has ended; why.
    WorkerDisconnected(RunId, WorkerId, String),
    /// Stop every run so that another coordinator can adopt it, then answer and end.
    Shutdown(Reply<()>),
}

impl Input {
    /// Whether this is a question, and the caller has gone. It is dropped then: a run is not submitted for a client that does
    /// not learn its id.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Self::Submit(_, reply) => reply.is_closed(),
            Self::Discovered(Discovery::Adoptable(_, reply)) => reply.is_closed(),
            Self::List(reply) => reply.is_closed(),
            Self::Get(_, reply) => reply.is_closed(),
            Self::Cancel(_, reply) | Self::Stop(_, reply) => reply.is_closed(),
            Self::Watch(_, reply) => reply.is_closed(),
            Self::Logs(_, reply) => reply.is_closed(),
            _ => false,
        }
    }
}
