//! Calls to a coordinator, with a deadline and an error for each.

mod watch;

use std::{error::Error, time::Duration};

use tokio::time::timeout;
use tonic::{Code as GrpcCode, Response, Status, Streaming};
use whimbrel_client::{Access, Address, Authorized, ConnectError};
use whimbrel_proto::v1::{self, runs_client::RunsClient, submit_request::What};

pub(crate) use self::watch::{Update, Watch};
use crate::{
    args::client::AccessArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    token,
};

/// Deadline of the answer to a call, as the protocol documents it.
const ANSWER: Duration = Duration::from_secs(30);

/// Calls a coordinator about its runs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: Address,
    runs: RunsClient<Authorized>,
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator refused the call, or the connection was lost.
    #[error("cannot {what}: {}", status.message())]
    Call {
        /// The purpose of the call, as in "stop run r-1".
        what: String,
        /// The coordinator.
        address: Address,
        /// The answer.
        status: Box<Status>,
    },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Connect(ConnectError::Token { .. }) => Self::bad_input(error),
            ClientError::Connect(ConnectError::Unreachable { address, .. }) => {
                let hint = format!(
                    "start one with `whimbrel coordinator --store URI --listen {address}`, or name another with \
                     --coordinator; `whimbrel run` needs none"
                );
                Self::unreachable(error).hint(hint)
            }
            ClientError::Call { status, address, .. } => {
                let code = exit_code(status);
                let hint = match status.code() {
                    GrpcCode::Unauthenticated => {
                        Some("give the coordinator's token with --token-file".to_owned())
                    }
                    _ if code == Code::Unreachable => {
                        Some(format!("is the coordinator at {address} still there?"))
                    }
                    _ => None,
                };
                let failure = Self::new(code, error);
                match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

/// The exit code for a refused call.
fn exit_code(status: &Status) -> Code {
    match status.code() {
        GrpcCode::InvalidArgument
        | GrpcCode::NotFound
        | GrpcCode::AlreadyExists
        | GrpcCode::FailedPrecondition
        | GrpcCode::PermissionDenied
        | GrpcCode::Unauthenticated => Code::BadInput,
        GrpcCode::Unavailable | GrpcCode::DeadlineExceeded => Code::Unreachable,
        // The connection broke during the call.
        _ if status.source().is_some_and(|source| source.is::<tonic::transport::Error>()) => {
            Code::Unreachable
        }
        _ => Code::Failed,
    }
}

impl ClientError {
    /// Whether the coordinator's answer was of this kind.
    pub(crate) fn is(&self, code: GrpcCode) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == code)
    }
}

impl Client {
    /// Connects to the coordinator that flags, variables and settings name.
    pub(crate) async fn open(access: AccessArgs, config: &ClientConfig) -> Result<Self, Failure> {
        let token = token::find(access.token_file.as_deref(), config.token_file.as_deref())?;
        let address = access.coordinator.or_else(|| config.coordinator.clone()).unwrap_or_default();
        Ok(Self::connect(Access { address, token }).await?)
    }

    /// Connects to a coordinator.
    pub(crate) async fn connect(access: Access) -> Result<Self, ClientError> {
        let runs = access.connect().await?.runs();
        Ok(Self { address: access.address, runs })
    }

    /// Starts or resumes a run. There is no deadline: a newer checkpoint may have to be fetched from another store first.
    /// The keepalive of the connection notices a lost coordinator.
    pub(crate) async fn submit(&mut self, what: What) -> Result<v1::SubmitResponse, ClientError> {
        let purpose = match &what {
            What::Spec(_) => "submit the run".to_owned(),
            What::Resume(run) => format!("resume run {run}"),
        };
        let request = v1::SubmitRequest { what: Some(what) };
        let Self { address, runs } = self;
        let answer = runs.submit(request).await;
        answer.map(Response::into_inner).map_err(|status| failed(address, purpose, status))
    }

    /// The status of all runs.
    pub(crate) async fn list(&mut self) -> Result<Vec<v1::RunStatus>, ClientError> {
        let Self { address, runs } = self;
        let answer = answer(address, "list the runs".to_owned(), runs.list(v1::ListRequest {})).await?;
        Ok(answer.runs)
    }

    /// The status of a run.
    pub(crate) async fn get(&mut self, run: &str) -> Result<v1::RunStatus, ClientError> {
        let Self { address, runs } = self;
        let request = v1::GetRequest { run: run.to_owned() };
        answer(address, format!("look up run {run}"), runs.get(request)).await
    }

    /// Asks for a checkpoint of a run, and for its stop.
    pub(crate) async fn stop(&mut self, run: &str) -> Result<(), ClientError> {
        let Self { address, runs } = self;
        let request = v1::StopRequest { run: run.to_owned() };
        answer(address, format!("stop run {run}"), runs.stop(request)).await.map(|_| ())
    }

    /// Ends a run for good.
    pub(crate) async fn cancel(&mut self, run: &str) -> Result<(), ClientError> {
        let Self { address, runs } = self;
        let request = v1::CancelRequest { run: run.to_owned() };
        answer(address, format!("cancel run {run}"), runs.cancel(request)).await.map(|_| ())
    }

    /// The events of a run from now on.
    pub(crate) async fn watch(&mut self, run: &str) -> Result<Streaming<v1::RunEvent>, ClientError> {
        let Self { address, runs } = self;
        let request = v1::WatchRequest { run: run.to_owned() };
        answer(address, format!("watch run {run}"), runs.watch(request)).await
    }

    /// The output of a run's workers.
    pub(crate) async fn logs(
        &mut self,
        request: v1::LogsRequest,
    ) -> Result<Streaming<v1::LogLine>, ClientError> {
        let Self { address, runs } = self;
        let purpose = format!("read the logs of run {}", request.run);
        answer(address, purpose, runs.logs(request)).await
    }

    /// The error for a stream of this coordinator that broke.
    pub(crate) fn broken(&self, what: String, status: Status) -> ClientError {
        failed(&self.address, what, status)
    }
}

/// Waits for the answer to a call, within the deadline.
async fn answer<T>(
    address: &Address,
    what: String,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    let late =
        || Status::deadline_exceeded(format!("{address} gave no answer within {} s", ANSWER.as_secs()));
    let answer = timeout(ANSWER, call).await.unwrap_or_else(|_| Err(late()));
    answer.map(Response::into_inner).map_err(|status| failed(address, what, status))
}

/// The error for a refused call.
fn failed(address: &Address, what: String, status: Status) -> ClientError {
    ClientError::Call { what, address: address.clone(), status: Box::new(status) }
}
