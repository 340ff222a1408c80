//! The way to a coordinator, for everything that asks one.

use std::{error::Error, time::Duration};

use tokio::time::timeout;
use tonic::{Code as GrpcCode, Response, Status, Streaming};
use whimbrel_client::{Access, Address, Authorized, ConnectError};
use whimbrel_proto::v1::{self, runs_client::RunsClient, submit_request::What};

use crate::{
    args::client::AccessArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    token,
};

/// For a call to be answered, as the protocol says.
const ANSWER: Duration = Duration::from_secs(30);

/// Asks a coordinator about runs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: Address,
    runs: RunsClient<Authorized>,
}

/// A call that did not get the answer it was made for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator refused, or was lost.
    #[error("cannot {what}: {}", status.message())]
    Call {
        /// What was wanted.
        what: String,
        /// Whom it was asked of.
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

/// The exit code that goes with an answer.
fn exit_code(status: &Status) -> Code {
    match status.code() {
        GrpcCode::InvalidArgument
        | GrpcCode::NotFound
        | GrpcCode::AlreadyExists
        | GrpcCode::FailedPrecondition
        | GrpcCode::PermissionDenied
        | GrpcCode::Unauthenticated => Code::BadInput,
        GrpcCode::Unavailable | GrpcCode::DeadlineExceeded => Code::Unreachable,
        // A connection that breaks under a call.
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
        let token = token::to_show(access.token_file.as_deref(), config.token_file.as_deref())?;
        let address = access.coordinator.or_else(|| config.coordinator.clone()).unwrap_or_default();
        Ok(Self::connect(Access { address, token }).await?)
    }

    /// Connects to a coordinator.
    pub(crate) async fn connect(access: Access) -> Result<Self, ClientError> {
        let runs = access.connect().await?.runs();
        Ok(Self { address: access.address, runs })
    }

    /// Starts a run, or takes one up: however long it takes, since a newer checkpoint may have to be fetched from another
    /// store first. The connection says whether the coordinator is there.
    pub(crate) async fn submit(&mut self, what: What) -> Result<v1::SubmitResponse, ClientError> {
        let words = match &what {
            What::Spec(_) => "submit the run".to_owned(),
            What::Resume(run) => format!("resume run {run}"),
        };
        let request = v1::SubmitRequest { what: Some(what) };
        let Self { address, runs } = self;
        let answer = runs.submit(request).await;
        answer.map(Response::into_inner).map_err(|status| failed(address, words, status))
    }

    /// How all runs stand.
    pub(crate) async fn list(&mut self) -> Result<Vec<v1::RunStatus>, ClientError> {
        let Self { address, runs } = self;
        let answer = answer(address, "list the runs".to_owned(), runs.list(v1::ListRequest {})).await?;
        Ok(answer.runs)
    }

    /// How a run stands.
    pub(crate) async fn get(&mut self, run: &str) -> Result<v1::RunStatus, ClientError> {
        let Self { address, runs } = self;
        let request = v1::GetRequest { run: run.to_owned() };
        answer(address, format!("look run {run} up"), runs.get(request)).await
    }

    /// Has a run save a checkpoint and stop.
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

    /// What happens to a run from now on.
    pub(crate) async fn watch(&mut self, run: &str) -> Result<Streaming<v1::RunEvent>, ClientError> {
        let Self { address, runs } = self;
        let request = v1::WatchRequest { run: run.to_owned() };
        answer(address, format!("watch run {run}"), runs.watch(request)).await
    }

    /// What a run's workers printed.
    pub(crate) async fn logs(
        &mut self,
        request: v1::LogsRequest,
    ) -> Result<Streaming<v1::LogLine>, ClientError> {
        let Self { address, runs } = self;
        let words = format!("read the logs of run {}", request.run);
        answer(address, words, runs.logs(request)).await
    }

    /// What went wrong with a stream that this coordinator had begun to send.
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

/// What went wrong with a call.
fn failed(address: &Address, what: String, status: Status) -> ClientError {
    ClientError::Call { what, address: address.clone(), status: Box::new(status) }
}
