//! A panic of a task ends its run's term, and nothing else: the run is opened again, and no client waits for ever. The store
//! of these tests panics at the requests that a test names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "an error in a test must fail it")]

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};
use whimbrel_coordinator::{Coordinator, Settings};
use whimbrel_core::Timing;
use whimbrel_proto::v1::{
    self, RunEvent, RunStatus, agents_client::AgentsClient, run_event::Event, runs_client::RunsClient,
    submit_request::What,
};
use whimbrel_store::{HostedBy, Store};

const SPEC: &str = "name = \"t\"\ncommand = [\"true\"]\n[train]\nsteps = 4\nglobal_batch = 4\nshards = 2\n";

const MINUTE: Duration = Duration::from_secs(60);

/// Says of a request (`put` or `get`), the object's name and the body whether it panics.
type Trap = Box<dyn FnMut(&str, &str, &str) -> bool + Send>;

/// A store in memory with a trap. Its name is the URI of an empty folder, since a run's spec names its store.
#[derive(Clone)]
struct Trapped {
    folder: Arc<TempDir>,
    objects: Arc<InMemory>,
    trap: Arc<Mutex<Option<Trap>>>,
}

impl Trapped {
    fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self { folder, objects: Arc::default(), trap: Arc::default() }
    }

    fn store(&self) -> Store {
        Store::with_backend(&format!("file://{}", self.folder.path().display()), Arc::new(self.clone()))
    }

    fn set(&self, trap: impl FnMut(&str, &str, &str) -> bool + Send + 'static) {
        *self.trap.lock().unwrap() = Some(Box::new(trap));
    }

    fn remove_trap(&self) {
        *self.trap.lock().unwrap() = None;
    }

    fn check(&self, request: &str, at: &Path, body: &str) {
        // The lock is released before the panic.
        let panics = self.trap.lock().unwrap().as_mut().is_some_and(|trap| trap(request, at.as_ref(), body));
        assert!(!panics, "trapped a {request} of {at}");
    }
}

impl fmt::Debug for Trapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trapped")
    }
}

impl fmt::Display for Trapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trapped")
    }
}

#[async_trait]
impl ObjectStore for Trapped {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check("put", at, &String::from_utf8_lossy(&Bytes::from(body.clone())));
        self.objects.put_opts(at, body, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.check("get", at, "");
        self.objects.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

async fn start(trapped: &Trapped) -> (Coordinator, Channel) {
    let settings = Settings {
        store: trapped.store(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token: None,
        adopt: true,
        timing: Timing::default(),
    };
    let coordinator = Coordinator::start(settings).await.unwrap();
    let address = format!("http://{}", coordinator.address());
    (coordinator, Channel::from_shared(address).unwrap().connect().await.unwrap())
}

async fn submit(runs: &mut RunsClient<Channel>, what: What) -> Result<String, tonic::Status> {
    let submitted = runs.submit(v1::SubmitRequest { what: Some(what) });
    Ok(within_a_minute(submitted).await?.into_inner().run)
}

async fn watch(runs: &mut RunsClient<Channel>, run: &str) -> Streaming<RunEvent> {
    runs.watch(v1::WatchRequest { run: run.to_owned() }).await.unwrap().into_inner()
}

/// Polls a run's status until it is as wanted.
async fn until_status(
    runs: &mut RunsClient<Channel>,
    run: &str,
    wanted: impl Fn(&RunStatus) -> bool,
) -> RunStatus {
    let began = Instant::now();
    loop {
        let status = runs.get(v1::GetRequest { run: run.to_owned() }).await.unwrap().into_inner();
        if wanted(&status) {
            return status;
        }
        assert!(began.elapsed() < MINUTE, "{status:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn within_a_minute<T>(future: impl Future<Output = T>) -> T {
    timeout(MINUTE, future).await.unwrap()
}

/// Reads events to the end: the warnings, the details of the phase `Waiting`, and the last event.
async fn to_the_end(mut events: Streaming<RunEvent>) -> (Vec<String>, Vec<String>, v1::EndedEvent) {
    let (mut warnings, mut waiting, mut last) = (Vec::new(), Vec::new(), None);
    while let Some(RunEvent { event }) = within_a_minute(events.message()).await.unwrap() {
        match &event {
            Some(Event::Warning(warning)) => warnings.push(warning.text.clone()),
            Some(Event::Phase(phase)) if phase.phase() == v1::Phase::Waiting => {
                waiting.push(phase.detail.clone());
            }
            _ => {}
        }
        last = event;
    }
    let Some(Event::Ended(ended)) = last else { panic!("the last event is {last:?}") };
    (warnings, waiting, ended)
}

fn is_end_entry(request: &str, at: &str, body: &str) -> bool {
    request == "put" && at.contains("/log/") && body.contains(r#""record":"ended""#)
}

#[tokio::test]
async fn a_run_whose_recorder_panics_is_opened_again_after_growing_pauses() {
    let trapped = Trapped::new();
    let (coordinator, channel) = start(&trapped).await;
    let mut runs = RunsClient::new(channel);
    let run = submit(&mut runs, What::Spec(SPEC.into())).await.unwrap();
    let events = watch(&mut runs, &run).await;

    // The recorder panics at every attempt to record that the run is cancelled.
    trapped.set(is_end_entry);
    let began = Instant::now();
    runs.cancel(v1::CancelRequest { run: run.clone() }).await.unwrap();
    let status = until_status(&mut runs, &run, |status| status.detail.contains("recorder")).await;
    assert_eq!((status.phase(), status.epoch), (v1::Phase::Waiting, 1), "{}", status.detail);
    assert!(status.detail.contains("panicked: trapped a put"), "{}", status.detail);
    assert!(status.detail.ends_with("the run is opened again in 1 s"), "{}", status.detail);
    // Under each new epoch it is cancelled again, and the recorder panics again.
    until_status(&mut runs, &run, |status| status.epoch == 3 && status.detail.contains("in 4 s")).await;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());

    trapped.remove_trap();
    let (warnings, waiting, ended) = to_the_end(events).await;
    assert_eq!(ended.phase(), v1::Phase::Cancelled, "{ended:?}");
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for (pause, text) in ["1 s", "2 s", "4 s"].iter().zip(&warnings) {
        assert!(text.contains("the recorder of the run panicked") && text.ends_with(pause), "{text}");
        assert!(waiting.contains(text), "{waiting:?}");
    }
    let log = trapped.store().run(&run.parse().unwrap()).run_log().await.unwrap();
    assert_eq!(log.epoch(), 4);
    assert!(log.ended().is_some());
    coordinator.stop().await;
}

#[tokio::test]
async fn a_request_between_two_terms_is_carried_out_in_the_next() {
    let trapped = Trapped::new();
    let (coordinator, channel) = start(&trapped).await;
    let mut runs = RunsClient::new(channel);
    let run = submit(&mut runs, What::Spec(SPEC.into())).await.unwrap();
    let events = watch(&mut runs, &run).await;
    trapped.set(|request, at, body| {
        request == "put" && at.contains("/log/") && body.contains(r#""record":"stopped""#)
    });
    runs.stop(v1::StopRequest { run: run.clone() }).await.unwrap();
    until_status(&mut runs, &run, |status| status.detail.contains("recorder")).await;
    trapped.remove_trap();
    runs.cancel(v1::CancelRequest { run }).await.unwrap();
    let (_, _, ended) = to_the_end(events).await;
    assert_eq!(ended.phase(), v1::Phase::Cancelled, "{ended:?}");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_run_that_is_to_be_opened_again() {
    let trapped = Trapped::new();
    let (coordinator, channel) = start(&trapped).await;
    let mut runs = RunsClient::new(channel);
    let run = submit(&mut runs, What::Spec(SPEC.into())).await.unwrap();
    let events = watch(&mut runs, &run).await;
    trapped.set(is_end_entry);
    runs.cancel(v1::CancelRequest { run: run.clone() }).await.unwrap();
    until_status(&mut runs, &run, |status| status.detail.contains("recorder")).await;
    within_a_minute(coordinator.stop()).await;
    let (_, _, ended) = to_the_end(events).await;
    assert_eq!(ended.phase(), v1::Phase::Stopped);
    assert!(ended.reason.contains("panicked") && ended.reason.contains("shutting down"), "{}", ended.reason);
}

#[tokio::test]
async fn a_run_whose_output_writer_panics_is_opened_again() {
    let trapped = Trapped::new();
    let (coordinator, channel) = start(&trapped).await;
    let mut runs = RunsClient::new(channel.clone());
    let run = submit(&mut runs, What::Spec(SPEC.into())).await.unwrap();
    let (node, messages) = tokio::sync::mpsc::channel(8);
    let send = |message| node.send(v1::AgentMessage { message: Some(message) });
    let join = v1::Join { name: "n".into(), slots: 1, ..v1::Join::default() };
    send(v1::agent_message::Message::Join(join)).await.unwrap();
    let _commands = AgentsClient::new(channel).connect(ReceiverStream::new(messages)).await.unwrap();

    trapped.set(|request, at, _| request == "put" && at.contains("/output/"));
    // As much as is written at once.
    let output = v1::Output { run: run.clone(), worker: 1, lines: vec!["x".repeat(70_000)] };
    send(v1::agent_message::Message::Output(output)).await.unwrap();
    until_status(&mut runs, &run, |status| status.detail.contains("the output writer of the run panicked"))
        .await;
    trapped.remove_trap();
    until_status(&mut runs, &run, |status| status.epoch == 2 && !status.detail.contains("panicked")).await;
    coordinator.stop().await;
}

#[tokio::test]
async fn a_panic_while_a_run_is_resumed_fails_the_call_and_a_later_one_succeeds() {
    let trapped = Trapped::new();
    let (coordinator, channel) = start(&trapped).await;
    let mut runs = RunsClient::new(channel);
    let run = submit(&mut runs, What::Spec(SPEC.into())).await.unwrap();
    runs.stop(v1::StopRequest { run: run.clone() }).await.unwrap();
    until_status(&mut runs, &run, |status| status.phase() == v1::Phase::Stopped).await;

    let log = format!("{run}/log/");
    trapped.set(move |request, at, _| request == "put" && at.contains(&log));
    let error = submit(&mut runs, What::Resume(run.clone())).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(error.message().contains("trapped a put"), "{error}");
    trapped.remove_trap();
    submit(&mut runs, What::Resume(run.clone())).await.unwrap();
    coordinator.stop().await;
}

#[tokio::test]
async fn a_panic_while_a_run_is_adopted_does_not_affect_the_others() {
    let trapped = Trapped::new();
    for name in ["t-1", "t-2"] {
        let run = trapped.store().run(&name.parse().unwrap());
        run.create(SPEC, HostedBy::Service).await.unwrap();
    }
    // Once when the log is read, after its first entry was looked up for the list of runs; and once when a term is started.
    let (mut gets, mut puts) = (0, 0);
    trapped.set(move |request, at, _| {
        let count = if request == "get" { &mut gets } else { &mut puts };
        at.contains("t-1/log/") && {
            *count += 1;
            *count == if request == "get" { 2 } else { 1 }
        }
    });
    let (coordinator, channel) = start(&trapped).await;
    let mut runs = RunsClient::new(channel);
    let began = Instant::now();
    let listed = within_a_minute(runs.list(v1::ListRequest {})).await.unwrap().into_inner().runs;
    assert!(listed.iter().any(|status| status.run == "t-2"), "{listed:?}");
    until_status(&mut runs, "t-2", |status| status.epoch == 1).await;
    assert!(began.elapsed() < Duration::from_secs(4), "the panic delayed the other run");

    let adopted = async {
        loop {
            let listed = runs.list(v1::ListRequest {}).await.unwrap().into_inner().runs;
            if listed.iter().any(|status| status.run == "t-1" && status.epoch == 1) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    within_a_minute(adopted).await;
    coordinator.stop().await;
}
