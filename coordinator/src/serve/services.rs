//! The gRPC services: thin, each call one question to the driver.

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

use crate::{driver::input::{Input, Inputs}, record::output_writer, serve::stream::{Attendance, BACKLOG}};

/// The first message of an attendance must come within this time.
const GREETING: Duration = Duration::from_secs(10);

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All three services, over one driver.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) inputs: Inputs,
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("field {field} is missing"))
}

fn unknown(run: &str) -> Status {
    Status::not_found(format!("there is no run {run:?} here; `whimbrel runs` lists those there are"))
}

async fn greeting<M>(inbound: &mut Streaming<M>) -> Result<M, Status> {
    timeout(GREETING, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no greeting within {} s", GREETING.as_secs())))??
        .ok_or_else(|| Status::invalid_argument("the stream ended before a greeting"))
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

    type WatchStream = Answer<v1::RunEvent>;

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

    type LogsStream = Answer<v1::LogLine>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let v1::LogsRequest { run, worker, follow } = request.into_inner();
        let id = run_id(&run)?;
        let printed = self.inputs.ask(|reply| Input::Logs(id, reply)).await?.ok_or_else(|| unknown(&run))?;
        let lines = output_writer::read_back(printed, follow)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
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
    type ConnectStream = Answer<v1::AgentCommand>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut inbound = request.into_inner();
        let Some(v1::agent_message::Message::Join(join)) = greeting(&mut inbound).await?.message else {
            return Err(Status::invalid_argument("an agent says `join` first"));
        };
        if join.slots == 0 {
            return Err(Status::invalid_argument("field slots is 0: a node must offer at least one"));
        }
        let (link, outbound) = mpsc::channel(BACKLOG);
        let node = self.inputs.ask(|reply| Input::NodeJoined(join, link, reply)).await?;
        let read = move |message: v1::AgentMessage| {
            Ok(Input::FromNode(node, message.message.ok_or_else(|| missing("message"))?))
        };
        let goodbye = move |why| Input::NodeGone(node, why);
        Ok(Response::new(Attendance::new(inbound, outbound, self.inputs.clone(), read, goodbye).boxed()))
    }
}

#[tonic::async_trait]
impl v1::workers_server::Workers for Services {
    type ConnectStream = Answer<v1::WorkerCommand>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut inbound = request.into_inner();
        let Some(v1::worker_message::Message::Hello(hello)) = greeting(&mut inbound).await?.message else {
            return Err(Status::invalid_argument("a worker says `hello` first"));
        };
        let (run, worker) = (run_id(&hello.run)?, WorkerId(hello.worker));
        let (link, outbound) = mpsc::channel(BACKLOG);
        let question = |reply| Input::WorkerCalled(run.clone(), worker, link.clone(), reply);
        let welcome = self.inputs.ask(question).await??;
        let command = v1::WorkerCommand { command: Some(v1::worker_command::Command::Welcome(welcome)) };
        let id = run.clone();
        let read = move |message: v1::WorkerMessage| {
            let message = message.message.ok_or_else(|| missing("message"))?;
            Ok(Input::FromWorker(id.clone(), worker, message))
        };
        let goodbye = move |why| Input::WorkerGone(run.clone(), worker, why);
        let attendance = Attendance::new(inbound, outbound, self.inputs.clone(), read, goodbye);
        Ok(Response::new(stream::iter([Ok(command)]).chain(attendance).boxed()))
    }
}
