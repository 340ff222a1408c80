//! The gRPC services. Each call is one question to the driver; the `.proto` files say who calls what, and when.

use std::{pin::Pin, time::Duration};

use futures::{StreamExt, stream};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{
    Stream,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};
use tonic::{Request, Response, Status, Streaming};
use whimbrel_plan::WorkerId;
use whimbrel_proto::{border::run_id, v1};

use crate::{
    driver::input::{Input, Inputs},
    serve::stream::{COMMAND_BACKLOG, ConnectStream},
};

/// The first message of a `Connect` call must arrive within this time.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The three services over one driver.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) inputs: Inputs,
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("field {field} is missing"))
}

fn unknown(run: &str) -> Status {
    Status::not_found(format!("there is no run {run:?} here; `whimbrel runs` lists the runs"))
}

async fn first_message<M>(messages: &mut Streaming<M>) -> Result<M, Status> {
    let late = |_| {
        let seconds = FIRST_MESSAGE_TIMEOUT.as_secs();
        Status::deadline_exceeded(format!("no first message within {seconds} s"))
    };
    timeout(FIRST_MESSAGE_TIMEOUT, messages.message())
        .await
        .map_err(late)??
        .ok_or_else(|| Status::invalid_argument("the stream ended before its first message"))
}

#[tonic::async_trait]
impl v1::runs_server::Runs for Services {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let what = request.into_inner().what.ok_or_else(|| missing("what"))?;
        let answer = self.inputs.ask(|reply| Input::Submit(what, reply)).await?;
        Ok(Response::new(answer?))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let runs = self.inputs.ask(Input::List).await?;
        Ok(Response::new(v1::ListResponse { runs }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::RunStatus>, Status> {
        let run = request.into_inner().run;
        let id = run_id(&run)?;
        let status = self.inputs.ask(|reply| Input::Get(id, reply)).await?;
        status.map(Response::new).ok_or_else(|| unknown(&run))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        let id = run_id(&request.into_inner().run)?;
        self.inputs.ask(|reply| Input::Cancel(id, reply)).await??;
        Ok(Response::new(v1::CancelResponse {}))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        let id = run_id(&request.into_inner().run)?;
        self.inputs.ask(|reply| Input::Stop(id, reply)).await??;
        Ok(Response::new(v1::StopResponse {}))
    }

    type WatchStream = ResponseStream<v1::RunEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let run = request.into_inner().run;
        let id = run_id(&run)?;
        let (first, events) =
            self.inputs.ask(|reply| Input::Watch(id, reply)).await?.ok_or_else(|| unknown(&run))?;
        let events = BroadcastStream::new(events).map(|event| {
            event.map_err(|BroadcastStreamRecvError::Lagged(missed)| {
                Status::resource_exhausted(format!(
                    "{missed} events came faster than they were read; watch again"
                ))
            })
        });
        Ok(Response::new(stream::iter(first.into_iter().map(Ok)).chain(events).boxed()))
    }

    type LogsStream = ResponseStream<v1::LogLine>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let v1::LogsRequest { run, worker, follow } = request.into_inner();
        let id = run_id(&run)?;
        let reader = self.inputs.ask(|reply| Input::Logs(id, reply)).await?.ok_or_else(|| unknown(&run))?;
        let lines = reader.lines(follow).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let wanted = move |line: &Result<v1::LogLine, Status>| {
            let keep = line.as_ref().is_ok_and(|line| worker.is_none_or(|worker| worker == line.worker))
                || line.is_err();
            std::future::ready(keep)
        };
        Ok(Response::new(lines.filter(wanted).boxed()))
    }
}

#[tonic::async_trait]
impl v1::agents_server::Agents for Services {
    type ConnectStream = ResponseStream<v1::AgentCommand>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut messages = request.into_inner();
        let Some(v1::agent_message::Message::Join(join)) = first_message(&mut messages).await?.message else {
            return Err(Status::invalid_argument("an agent must send `join` first"));
        };
        if join.slots == 0 {
            return Err(Status::invalid_argument("field slots is 0: a node must offer at least one"));
        }
        let (agent, commands) = mpsc::channel(COMMAND_BACKLOG);
        let node = self.inputs.ask(|reply| Input::NodeJoined(join, agent, reply)).await?;
        let to_input = move |message: v1::AgentMessage| {
            Ok(Input::FromNode(node, message.message.ok_or_else(|| missing("message"))?))
        };
        let to_disconnected = move |reason| Input::NodeDisconnected(node, reason);
        let stream = ConnectStream::new(messages, commands, self.inputs.clone(), to_input, to_disconnected);
        Ok(Response::new(stream.boxed()))
    }
}

#[tonic::async_trait]
impl v1::workers_server::Workers for Services {
    type ConnectStream = ResponseStream<v1::WorkerCommand>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut messages = request.into_inner();
        let Some(v1::worker_message::Message::Hello(hello)) = first_message(&mut messages).await?.message
        else {
            return Err(Status::invalid_argument("a worker must send `hello` first"));
        };
        let (run, worker) = (run_id(&hello.run)?, WorkerId(hello.worker));
        let (sender, commands) = mpsc::channel(COMMAND_BACKLOG);
        let question = |reply| Input::WorkerConnected(run.clone(), worker, sender, reply);
        let welcome = self.inputs.ask(question).await??;
        let welcome = v1::WorkerCommand { command: Some(v1::worker_command::Command::Welcome(welcome)) };
        let id = run.clone();
        let to_input = move |message: v1::WorkerMessage| {
            let message = message.message.ok_or_else(|| missing("message"))?;
            Ok(Input::FromWorker(id.clone(), worker, message))
        };
        let to_disconnected = move |reason| Input::WorkerDisconnected(run.clone(), worker, reason);
        let stream = ConnectStream::new(messages, commands, self.inputs.clone(), to_input, to_disconnected);
        Ok(Response::new(stream::iter([Ok(welcome)]).chain(stream).boxed()))
    }
}
