//! The control link: this worker's attendance at its coordinator.
//!
//! A runtime of its own, on threads of its own, keeps the stream alive while the program computes: it sends heartbeats,
//! turns commands into [`Orders`], and wakes whatever the training thread is blocked in when they call it off.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_stream::{Stream, StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
};
use whimbrel_collective::Interrupter;
use whimbrel_plan::Generation;
use whimbrel_proto::{
    MAX_MESSAGE,
    border::WireError,
    v1::{self, worker_command::Command, worker_message::Message, workers_client::WorkersClient},
};

use crate::{
    control::{
        requests::{Asked, End, Expected, Orders},
        settings::Terms,
    },
    environment::Environment,
    session::join::ConnectError,
};

/// For the coordinator to be reached and to answer with its welcome.
const WELCOME: Duration = Duration::from_secs(30);
/// The coordinator sends something every second: silence for this long means that it is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// Between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// For the coordinator to take the last messages of a worker that ends.
pub(crate) const FAREWELL: Duration = Duration::from_secs(5);

/// How the coordinator was lost.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The stream ended in good order, without a word that this worker is to leave.
    #[error("it closed the stream")]
    Closed,
    /// The stream broke.
    #[error("the stream broke")]
    Broken(#[source] Status),
    /// Nothing came, not even heartbeats.
    #[error("nothing came from it for {} s, not even a heartbeat", .0.as_secs())]
    Silent(Duration),
    /// It said something that makes no sense.
    #[error("it sent a command that makes no sense; are the coordinator and this program of one version?")]
    Nonsense(#[source] WireError),
    /// The task that listens to it ended before its time.
    #[error("the task that listens to it ended before its time")]
    Unreplicated,
}

/// The control link, as the training thread sees it.
#[derive(Debug)]
pub(crate) struct Link {
    handle: Handle,
    /// Kept to be shut down without waiting for what runs in it.
    runtime: Option<Runtime>,
    /// The one strong end: when it is dropped, the stream to the coordinator ends.
    outgoing: Option<mpsc::UnboundedSender<v1::WorkerMessage>>,
    outbox: Outbox,
    orders: watch::Receiver<Orders>,
    progress: Arc<Progress>,
    listener: JoinSet<()>,
}

/// How far this worker is, for heartbeats.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    generation: AtomicU64,
    step: AtomicU64,
}

/// Sends messages to the coordinator, as long as the link is open. What cannot be sent is dropped: that the link is
/// gone shows in the orders.
#[derive(Clone, Debug)]
pub(crate) struct Outbox(mpsc::WeakUnboundedSender<v1::WorkerMessage>);

impl Outbox {
    pub(crate) fn send(&self, message: Message) {
        if let Some(outgoing) = self.0.upgrade() {
            // Unbounded, and yet bounded: a coordinator that takes nothing for `SILENCE` is given up.
            let _dropped = outgoing.send(v1::WorkerMessage { message: Some(message) });
        }
    }
}

impl Link {
    /// Calls the coordinator, introduces this worker and is told the terms of its run.
    pub(crate) fn open(
        environment: &Environment,
        interrupter: Interrupter,
    ) -> Result<(Self, Terms), ConnectError> {
        // What a restore reads is hashed on these threads, one a processor; besides, one for heartbeats at least.
        let threads = available_parallelism().map_or(2, |processors| processors.get().max(2));
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).thread_name("whimbrel-link").enable_all().build();
        let runtime = runtime.map_err(ConnectError::Runtime)?;
        let (outgoing, messages) = mpsc::unbounded_channel();
        let address = || environment.coordinator.clone();
        let call = async { timeout(WELCOME, call(environment, &outgoing, messages)).await };
        let (stream, terms) = runtime
            .block_on(call)
            .map_err(|_| ConnectError::Slow { coordinator: address(), waited: WELCOME })??;
        let (watched, orders) = watch::channel(Orders::default());
        let progress = Arc::default();
        let outbox = Outbox(outgoing.downgrade());
        let listening = Listening {
            expected: Expected {
                run: environment.run.clone(),
                worker: environment.worker,
                epoch: terms.epoch,
                shards: terms.context.shards,
            },
            orders: watched,
            interrupter,
            outbox: outbox.clone(),
            progress: Arc::clone(&progress),
        };
        let mut listener = JoinSet::new();
        listener.spawn_on(listening.run(stream), runtime.handle());
        let handle = runtime.handle().clone();
        let (runtime, outgoing) = (Some(runtime), Some(outgoing));
        Ok((Self { handle, runtime, outgoing, outbox, orders, progress, listener }, terms))
    }

    /// Where messages to the coordinator go, from any thread.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Where tasks that must not hold up the training thread run.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tells the heartbeats how far this worker is.
    pub(crate) fn set_progress(&self, generation: u64, step: Option<u64>) {
        self.progress.generation.store(generation, Ordering::Relaxed);
        self.progress.step.store(step.unwrap_or(0), Ordering::Relaxed);
    }

    /// Why the worker is to end, if it is.
    pub(crate) fn ended(&self) -> Option<End> {
        let unreplicated =
            || self.orders.has_changed().is_err().then(|| End::Lost(Arc::new(LinkError::Unreplicated)));
        let end = self.orders.borrow().ended().cloned();
        end.or_else(unreplicated)
    }

    /// Whether a member of `generation` is to leave it, in the middle of whatever it does.
    pub(crate) fn calls_off(&self, generation: u64) -> bool {
        self.orders.borrow().calls_off(generation)
    }

    /// What was asked of the members of `generation`.
    pub(crate) fn asked_of(&self, generation: u64) -> Asked {
        self.orders.borrow().asked_of(generation)
    }

    /// Waits for a generation above `last`; `None` when the worker is to end instead. How long that takes is for the
    /// coordinator to say; that there is one, its heartbeats say.
    pub(crate) fn next_generation(&mut self, last: u64) -> Option<Arc<Generation>> {
        let due = |orders: &Orders| orders.ended().is_some() || orders.generation_after(last).is_some();
        let orders = self.handle.block_on(self.orders.wait_for(due)).ok()?;
        if orders.ended().is_some() { None } else { orders.generation_after(last).cloned() }
    }

    /// Waits until `generation` is called off or more than `met` checkpoints were asked of its members.
    pub(crate) fn called_off_or_asked(&mut self, generation: u64, met: u64) {
        let due =
            |orders: &Orders| orders.calls_off(generation) || orders.asked_of(generation).checkpoints > met;
        // An error means that the listener is gone, which `ended` tells.
        let _gone = self.handle.block_on(self.orders.wait_for(due)).is_err();
    }

    /// Does something on this thread until it is done, or until `generation` is called off: then it is dropped where it
    /// is, and `None` is returned.
    pub(crate) fn unless_called_off<T>(&self, generation: u64, work: impl Future<Output = T>) -> Option<T> {
        let mut orders = self.orders.clone();
        self.handle.block_on(async {
            tokio::select! {
                biased;
                _ = orders.wait_for(|orders| orders.calls_off(generation)) => None,
                done = work => Some(done),
            }
        })
    }

    /// Sends what is still to be sent and ends the stream.
    pub(crate) fn close(&mut self) {
        self.outgoing = None;
        let listener = &mut self.listener;
        // The coordinator ends its side when it has read all of ours; if it does not, it is as good as gone.
        let ended = self.handle.block_on(async { timeout(FAREWELL, listener.join_next()).await });
        if ended.is_err() {
            tracing::warn!("the coordinator did not end the stream within {FAREWELL:?}");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Calls the coordinator; returns its stream of commands after the welcome.
async fn call(
    environment: &Environment,
    outgoing: &mpsc::UnboundedSender<v1::WorkerMessage>,
    messages: mpsc::UnboundedReceiver<v1::WorkerMessage>,
) -> Result<(Streaming<v1::WorkerCommand>, Terms), ConnectError> {
    let address = || environment.coordinator.clone();
    let unreachable = |source| ConnectError::Unreachable { coordinator: address(), source };
    let uri = format!("http://{}", environment.coordinator);
    let endpoint = tonic::transport::Endpoint::from_shared(uri).map_err(unreachable)?;
    let channel = endpoint.tcp_nodelay(true).connect().await.map_err(unreachable)?;
    let hello =
        v1::Hello { run: environment.run.to_string(), worker: environment.worker.0, pid: std::process::id() };
    Outbox(outgoing.downgrade()).send(Message::Hello(hello));
    let mut request = Request::new(UnboundedReceiverStream::new(messages));
    if let Some(token) = &environment.token {
        request.metadata_mut().insert("authorization", bearer(token).map_err(ConnectError::Token)?);
    }
    let mut client = WorkersClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let refused = |source| {
        let (coordinator, run, worker) = (address(), environment.run.clone(), environment.worker);
        ConnectError::Refused { coordinator, run, worker, source }
    };
    let mut stream = client.connect(request).await.map_err(refused)?.into_inner();
    let command = stream.message().await.map_err(refused)?.and_then(|command| command.command);
    let odd = |source| ConnectError::Welcome { coordinator: address(), source };
    match command {
        Some(Command::Welcome(welcome)) => Ok((stream, welcome.try_into().map_err(odd)?)),
        _ => Err(odd(WireError::Missing("command.welcome"))),
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, InvalidMetadataValue> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
    value.set_sensitive(true);
    Ok(value)
}

/// The task at the other end of [`Link::orders`].
struct Listening {
    expected: Expected,
    orders: watch::Sender<Orders>,
    interrupter: Interrupter,
    outbox: Outbox,
    progress: Arc<Progress>,
}

impl Listening {
    /// Listens until the coordinator is lost, however that comes about.
    async fn run(self, stream: impl Stream<Item = Result<v1::WorkerCommand, Status>>) {
        let error = self.listen(stream).await;
        self.orders.send_modify(|orders| orders.end(End::Lost(Arc::new(error))));
        self.interrupter.interrupt(u64::MAX);
    }

    async fn listen(&self, stream: impl Stream<Item = Result<v1::WorkerCommand, Status>>) -> LinkError {
        tokio::pin!(stream);
        let mut heartbeats = interval(HEARTBEAT);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                _ = heartbeats.tick() => self.outbox.send(Message::Heartbeat(self.progress.heartbeat())),
                command = timeout_at(heard + SILENCE, stream.next()) => {
                    heard = Instant::now();
                    match command {
                        Err(_) => return LinkError::Silent(SILENCE),
                        Ok(None) => return LinkError::Closed,
                        Ok(Some(Err(status))) => return LinkError::Broken(status),
                        Ok(Some(Ok(command))) => {
                            if let Err(error) = self.take(command) {
                                return LinkError::Nonsense(error);
                            }
                        }
                    }
                }
            }
        }
    }

    fn take(&self, command: v1::WorkerCommand) -> Result<(), WireError> {
        let mut taken = Ok(());
        self.orders.send_modify(|orders| taken = orders.take(command, &self.expected));
        self.interrupter.interrupt(self.orders.borrow().called_off_through());
        taken
    }
}

impl Progress {
    fn heartbeat(&self) -> v1::WorkerHeartbeat {
        let (generation, step) = (self.generation.load(Ordering::Relaxed), self.step.load(Ordering::Relaxed));
        v1::WorkerHeartbeat { generation, step }
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_collective::Endpoint;
    use whimbrel_plan::WorkerId;

    use super::*;

    fn listening() -> (Listening, watch::Receiver<Orders>, mpsc::UnboundedReceiver<v1::WorkerMessage>) {
        let (orders, seen) = watch::channel(Orders::default());
        let (outgoing, sent) = mpsc::unbounded_channel();
        let expected = Expected { run: "r".parse().unwrap(), worker: WorkerId(1), epoch: 1, shards: 1 };
        let interrupter = Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap().interrupter();
        let outbox = Outbox(outgoing.downgrade());
        // The one strong end stays open for as long as the test runs.
        std::mem::forget(outgoing);
        (Listening { expected, orders, interrupter, outbox, progress: Arc::default() }, seen, sent)
    }

    fn lost(orders: &watch::Receiver<Orders>) -> String {
        match orders.borrow().ended() {
            Some(End::Lost(error)) => error.to_string(),
            other => panic!("not lost: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_coordinator_is_lost_and_was_sent_heartbeats_until_then() {
        let (listening, orders, mut sent) = listening();
        let began = Instant::now();
        listening.run(tokio_stream::pending()).await;
        assert_eq!(began.elapsed(), SILENCE);
        assert!(lost(&orders).contains("nothing came from it for 15 s"));
        let heartbeats = std::iter::from_fn(|| sent.try_recv().ok()).count() as u64;
        assert!((14..=16).contains(&heartbeats), "{heartbeats} heartbeats");
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_of_the_coordinator_keep_the_link() {
        let (listening, orders, _sent) = listening();
        let heartbeat = v1::WorkerCommand { command: Some(Command::Heartbeat(v1::CoordinatorHeartbeat {})) };
        let heartbeats = tokio_stream::iter((0..9).map(move |_| Ok(heartbeat.clone())));
        let every_ten_seconds = heartbeats.throttle(Duration::from_secs(10));
        let began = Instant::now();
        listening.run(every_ten_seconds).await;
        assert!(began.elapsed() >= Duration::from_secs(80));
        assert_eq!(lost(&orders), "it closed the stream");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_makes_no_sense_ends_the_link() {
        let (listening, orders, _sent) = listening();
        listening.run(tokio_stream::iter([Ok(v1::WorkerCommand { command: None })])).await;
        assert!(lost(&orders).contains("makes no sense"));
    }
}
