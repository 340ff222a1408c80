//! Calls to a coordinator over real sockets: authentication, answers and errors.

#![allow(clippy::unwrap_used, clippy::panic, reason = "an error in a test must fail it")]

use std::{fs, net::SocketAddr, path::Path};

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use whimbrel_coordinator::{Coordinator, Settings, Token};
use whimbrel_core::Timing;
use whimbrel_proto::v1::{
    self, agents_client::AgentsClient, runs_client::RunsClient, workers_client::WorkersClient,
};
use whimbrel_store::Store;

async fn start(folder: &Path, token: Option<Token>) -> (Coordinator, Channel) {
    let settings = Settings {
        store: Store::open(folder.join("runs").to_str().unwrap()).unwrap(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token,
        adopt: true,
        timing: Timing::default(),
    };
    let coordinator = Coordinator::start(settings).await.unwrap();
    let address = format!("http://{}", coordinator.address());
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    (coordinator, channel)
}

const SPEC: &str = "name = \"t\"\ncommand = [\"true\"]\n[train]\nsteps = 4\nglobal_batch = 4\nshards = 2\n";

fn spec(text: &str) -> v1::SubmitRequest {
    v1::SubmitRequest { what: Some(v1::submit_request::What::Spec(text.into())) }
}

fn resume(run: &str) -> v1::SubmitRequest {
    v1::SubmitRequest { what: Some(v1::submit_request::What::Resume(run.into())) }
}

#[tokio::test]
async fn health_and_reflection_answer_for_every_service() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, channel) = start(folder.path(), None).await;
    let mut names = Vec::new();
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    sender.send(list).await.unwrap();
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let mut answers =
        reflection.server_reflection_info(ReceiverStream::new(requests)).await.unwrap().into_inner();
    if let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    {
        names.extend(list.service.into_iter().map(|service| service.name));
    }
    let mut health = HealthClient::new(channel);
    for service in ["whimbrel.v1.Runs", "whimbrel.v1.Agents", "whimbrel.v1.Workers"] {
        assert!(names.iter().any(|name| name == service), "{service} is not in {names:?}");
        let request = HealthCheckRequest { service: service.into() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    drop(sender);
    coordinator.stop().await;
}

#[tokio::test]
async fn calls_without_the_token_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let token: Token = "0123456789abcdef".parse().unwrap();
    let (coordinator, channel) = start(folder.path(), Some(token)).await;
    let mut runs = RunsClient::new(channel.clone());
    let refused = |status: Status| assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    refused(runs.list(v1::ListRequest {}).await.unwrap_err());
    refused(runs.submit(spec(SPEC)).await.unwrap_err());
    let mut workers = WorkersClient::new(channel.clone());
    refused(workers.connect(tokio_stream::empty()).await.unwrap_err());
    let mut agents = AgentsClient::new(channel);
    refused(agents.connect(tokio_stream::empty()).await.unwrap_err());

    let mut request = Request::new(v1::ListRequest {});
    request.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer 0123456789abcdef"));
    assert!(runs.list(request).await.unwrap().into_inner().runs.is_empty());
    coordinator.stop().await;
}

#[tokio::test]
async fn a_spec_with_mistakes_creates_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, channel) = start(folder.path(), None).await;
    let mut runs = RunsClient::new(channel);
    let status = runs.submit(spec(&SPEC.replace("steps", "stepz").replace("= 2", "= 3"))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("stepz") && status.message().contains("shards"),
        "{}",
        status.message()
    );
    assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 0, "the store must stay empty");
    coordinator.stop().await;
}

#[tokio::test]
async fn an_unknown_run_is_not_found_and_an_ended_run_stays_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, channel) = start(folder.path(), None).await;
    let mut runs = RunsClient::new(channel.clone());
    let get = v1::GetRequest { run: "nobody".into() };
    assert_eq!(runs.get(get).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(runs.submit(resume("nobody")).await.unwrap_err().code(), Code::NotFound);

    let run = runs.submit(spec(SPEC)).await.unwrap().into_inner().run;
    let status = runs.get(v1::GetRequest { run: run.clone() }).await.unwrap().into_inner();
    assert_eq!(status.phase(), v1::Phase::Waiting, "there is no node: {}", status.detail);
    assert_eq!(runs.submit(resume(&run)).await.unwrap_err().code(), Code::AlreadyExists);

    let watch = v1::WatchRequest { run: run.clone() };
    let mut events = runs.watch(watch).await.unwrap().into_inner();
    runs.cancel(v1::CancelRequest { run: run.clone() }).await.unwrap();
    let mut last = None;
    while let Some(event) = events.message().await.unwrap() {
        last = event.event;
    }
    let Some(v1::run_event::Event::Ended(ended)) = last else { panic!("the last event is {last:?}") };
    assert_eq!(ended.phase(), v1::Phase::Cancelled);
    let again = runs.cancel(v1::CancelRequest { run: run.clone() }).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    let resumed = runs.submit(resume(&run)).await.unwrap_err();
    assert_eq!(resumed.code(), Code::FailedPrecondition);
    assert!(resumed.message().contains("cancelled"), "{}", resumed.message());

    // Another coordinator over the same store lists the run.
    coordinator.stop().await;
    let (coordinator, channel) = start(folder.path(), None).await;
    let mut runs = RunsClient::new(channel);
    let mut listed = Vec::new();
    while listed.is_empty() {
        listed = runs.list(v1::ListRequest {}).await.unwrap().into_inner().runs;
    }
    assert_eq!((listed[0].run.as_str(), listed[0].phase()), (run.as_str(), v1::Phase::Cancelled));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_worker_that_the_coordinator_did_not_start_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, channel) = start(folder.path(), None).await;
    let run = RunsClient::new(channel.clone()).submit(spec(SPEC)).await.unwrap().into_inner().run;
    let mut workers = WorkersClient::new(channel);
    let hello = v1::Hello { run, worker: 1, pid: 1 };
    let hello = v1::WorkerMessage { message: Some(v1::worker_message::Message::Hello(hello)) };
    let status = workers.connect(tokio_stream::once(hello)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");

    let heartbeat = v1::WorkerHeartbeat { generation: 1, step: 1 };
    let no_hello = v1::WorkerMessage { message: Some(v1::worker_message::Message::Heartbeat(heartbeat)) };
    let status = workers.connect(tokio_stream::once(no_hello)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    coordinator.stop().await;
}

#[tokio::test]
async fn the_first_watcher_gets_earlier_exits_and_later_watchers_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, channel) = start(folder.path(), None).await;
    let mut runs = RunsClient::new(channel.clone());
    let run = runs.submit(spec(SPEC)).await.unwrap().into_inner().run;

    // A node whose first worker exits at once. The coordinator has taken the exit when it starts the next worker.
    let (node, messages) = tokio::sync::mpsc::channel(8);
    let says = |message| node.send(v1::AgentMessage { message: Some(message) });
    let join = v1::Join { name: "n".into(), slots: 1, ..v1::Join::default() };
    says(v1::agent_message::Message::Join(join)).await.unwrap();
    let mut agents = AgentsClient::new(channel);
    let mut commands = agents.connect(ReceiverStream::new(messages)).await.unwrap().into_inner();
    let mut started = Vec::new();
    while started.len() < 2 {
        match commands.message().await.unwrap().unwrap().command.unwrap() {
            v1::agent_command::Command::Prepare(_) => {
                let prepared = v1::Prepared { run: run.clone(), seconds: 0.0 };
                says(v1::agent_message::Message::Prepared(prepared)).await.unwrap();
            }
            v1::agent_command::Command::Start(v1::StartWorker { worker, .. }) => {
                started.push(worker);
                if started.len() == 1 {
                    let pid = v1::WorkerStarted { run: run.clone(), worker, pid: 77 };
                    says(v1::agent_message::Message::WorkerStarted(pid)).await.unwrap();
                    let how = Some(v1::worker_exited::How::Code(1));
                    let tail = vec!["out of luck".into()];
                    let exited = v1::WorkerExited { run: run.clone(), worker, how, tail };
                    says(v1::agent_message::Message::WorkerExited(exited)).await.unwrap();
                }
            }
            _ => {}
        }
    }

    let watch = v1::WatchRequest { run };
    let mut events = runs.watch(watch.clone()).await.unwrap().into_inner();
    let status = events.message().await.unwrap().unwrap().event;
    assert!(matches!(status, Some(v1::run_event::Event::Status(_))), "{status:?}");
    let exit = events.message().await.unwrap().unwrap().event;
    let Some(v1::run_event::Event::Exit(exit)) = exit else { panic!("no exit event: {exit:?}") };
    assert_eq!((exit.worker, exit.pid, exit.tail), (started[0], 77, vec!["out of luck".into()]));

    // A second watcher does not get it.
    let mut events = runs.watch(watch).await.unwrap().into_inner();
    drop((node, commands));
    coordinator.stop().await;
    while let Ok(Some(event)) = events.message().await {
        assert!(
            !matches!(&event.event, Some(v1::run_event::Event::Exit(exit)) if exit.pid == 77),
            "{event:?}"
        );
    }
}
