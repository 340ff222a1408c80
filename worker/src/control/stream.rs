//! The control stream, as the training thread sees it.
//!
//! A runtime with threads of its own keeps the stream alive while the program computes: the [`Listener`] sends
//! heartbeats, turns commands into [`Requests`], and interrupts the operation in which the training thread blocks when
//! the coordinator calls its generation off. Uploads and restores run on the same threads.

use std::{future::Future, io, sync::Arc, thread::available_parallelism, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming};
use whimbrel_client::{Access, Address};
use whimbrel_collective::Interrupter;
use whimbrel_member::Requests;
use whimbrel_plan::{RunId, WorkerId};
use whimbrel_proto::{
    border::WireError,
    v1::{self, worker_command::Command, worker_message::Message},
};

use crate::{
    control::{
        canceller::Canceller,
        listener::{Inbox, Listener, Progress, StreamError},
        outbox::Outbox,
        requests::Expected,
        settings::RunSettings,
    },
    environment::Environment,
};

/// For the coordinator to be reached and to answer with its welcome.
const WELCOME: Duration = Duration::from_secs(30);
/// For the coordinator to take the last messages of a worker that ends, and for the last upload.
pub(crate) const CLOSE: Duration = Duration::from_secs(5);

/// The control stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The threads of the control stream could not be started.
    #[error("cannot start the threads of the control stream; check the limits on processes and open files")]
    Runtime(#[source] io::Error),
    /// The coordinator cannot be reached.
    #[error(transparent)]
    Connect(#[from] whimbrel_client::ConnectError),
    /// The coordinator did not answer in time.
    #[error("the coordinator at {coordinator} sent no welcome within {waited:?}")]
    Slow {
        /// Where it listens.
        coordinator: Address,
        /// How long this worker waited.
        waited: Duration,
    },
    /// The program ended the attempt.
    #[error("the attempt to connect to the coordinator at {coordinator} was ended")]
    Cancelled {
        /// Where it listens.
        coordinator: Address,
    },
    /// The coordinator refused this worker.
    #[error("the coordinator at {coordinator} refused worker {worker} of run {run}")]
    Refused {
        /// Where it listens.
        coordinator: Address,
        /// The run.
        run: RunId,
        /// The worker.
        worker: WorkerId,
        /// Why.
        source: Status,
    },
    /// The coordinator's welcome is invalid.
    #[error("the welcome of the coordinator at {coordinator} is invalid; are both of one version?")]
    Welcome {
        /// Where it listens.
        coordinator: Address,
        /// The invalid field.
        source: WireError,
    },
}

/// The control stream.
#[derive(Debug)]
pub(crate) struct ControlStream {
    handle: Handle,
    /// An option, so that it can be shut down without waiting for its tasks.
    runtime: Option<Runtime>,
    /// The only strong sender: when it is dropped, the stream to the coordinator ends.
    outgoing: Option<mpsc::UnboundedSender<v1::WorkerMessage>>,
    outbox: Outbox,
    inbox: watch::Receiver<Inbox>,
    progress: Arc<Progress>,
    listener: JoinSet<()>,
    canceller: Canceller,
}

impl ControlStream {
    /// Connects to the coordinator, introduces this worker and returns the settings of its run. Fails as soon as
    /// `cancelled` is done.
    pub(crate) fn open(
        environment: &Environment,
        interrupter: Interrupter,
        cancelled: impl Future<Output = ()>,
    ) -> Result<(Self, RunSettings), OpenError> {
        // A restore hashes on these threads, so one per processor. At least two, so that heartbeats have one.
        let threads = available_parallelism().map_or(2, |processors| processors.get().max(2));
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).thread_name("whimbrel-control").enable_all().build();
        let runtime = runtime.map_err(OpenError::Runtime)?;
        let (outgoing, messages) = mpsc::unbounded_channel();
        let call = async {
            let slow = |_| OpenError::Slow { coordinator: environment.coordinator.clone(), waited: WELCOME };
            tokio::select! {
                biased;
                () = cancelled => Err(OpenError::Cancelled { coordinator: environment.coordinator.clone() }),
                opened = timeout(WELCOME, call(environment, &outgoing, messages)) => opened.map_err(slow)?,
            }
        };
        let (stream, settings) = match runtime.block_on(call) {
            Ok(opened) => opened,
            Err(error) => {
                // Dropped, it would wait for a lookup of the address that is under way.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let (sender, inbox) = watch::channel(Inbox::default());
        let sender = Arc::new(sender);
        let canceller = Canceller { inbox: Arc::downgrade(&sender), interrupter: interrupter.clone() };
        let progress = Arc::default();
        let outbox = Outbox(outgoing.downgrade());
        let listening = Listener {
            expected: Expected {
                run: environment.run.clone(),
                worker: environment.worker,
                epoch: settings.epoch,
                shards: settings.context.shards,
            },
            inbox: sender,
            interrupter,
            outbox: outbox.clone(),
            progress: Arc::clone(&progress),
        };
        let mut listener = JoinSet::new();
        listener.spawn_on(listening.run(stream), runtime.handle());
        let handle = runtime.handle().clone();
        let (runtime, outgoing) = (Some(runtime), Some(outgoing));
        Ok((Self { handle, runtime, outgoing, outbox, inbox, progress, listener, canceller }, settings))
    }

    /// Ends the training thread's waits from another thread.
    pub(crate) fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Sends messages to the coordinator, from any thread.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The runtime for tasks beside the training thread.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sets what heartbeats report.
    pub(crate) fn set_progress(&self, generation: u64, step: Option<u64>) {
        self.progress.set(generation, step.unwrap_or(0));
    }

    /// Reads the coordinator's requests.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Requests) -> T) -> T {
        read(&self.inbox.borrow().requests)
    }

    /// Whether a member of `generation` is to leave it now, whatever it does.
    pub(crate) fn calls_off(&self, generation: u64) -> bool {
        self.read(|requests| requests.calls_off(generation))
    }

    /// How the coordinator was lost.
    pub(crate) fn lost(&self) -> Arc<StreamError> {
        self.inbox.borrow().lost.clone().unwrap_or_else(|| Arc::new(StreamError::ListenerEnded))
    }

    /// Whether the listener ended without a word. It panicked, so there will be no more requests.
    pub(crate) fn listener_died(&self) -> bool {
        self.inbox.has_changed().is_err() && self.read(|requests| requests.ended().is_none())
    }

    /// Waits until `is_due` holds of the requests, or until the listener ends. The wait has no deadline of its own: the
    /// coordinator's heartbeats show that it lives, and their absence ends the stream.
    pub(crate) fn wait(&mut self, mut is_due: impl FnMut(&Requests) -> bool) {
        let due = self.inbox.wait_for(|inbox| is_due(&inbox.requests));
        let _listener_ended = self.handle.block_on(due).is_err();
    }

    /// Runs `work` on this thread until it is done, or until `generation` is called off: then `work` is dropped, and
    /// `None` is returned.
    pub(crate) fn unless_called_off<T>(&self, generation: u64, work: impl Future<Output = T>) -> Option<T> {
        let mut inbox = self.inbox.clone();
        self.handle.block_on(async {
            tokio::select! {
                biased;
                _ = inbox.wait_for(|inbox| inbox.requests.calls_off(generation)) => None,
                done = work => Some(done),
            }
        })
    }

    /// Sends the remaining messages and ends the stream. Takes at most 5 s.
    pub(crate) fn close(&mut self) {
        self.outgoing = None;
        let listener = &mut self.listener;
        // The coordinator ends its side when it has read all messages. If it does not, waiting longer is of no use.
        let ended = self.handle.block_on(async { timeout(CLOSE, listener.join_next()).await });
        if ended.is_err() {
            tracing::warn!("the coordinator did not end the stream within {CLOSE:?}");
        }
    }
}

impl Drop for ControlStream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Opens the stream. Returns the coordinator's commands after the welcome.
async fn call(
    environment: &Environment,
    outgoing: &mpsc::UnboundedSender<v1::WorkerMessage>,
    messages: mpsc::UnboundedReceiver<v1::WorkerMessage>,
) -> Result<(Streaming<v1::WorkerCommand>, RunSettings), OpenError> {
    let Environment { coordinator, run, worker, token, .. } = environment;
    let access = Access { address: coordinator.clone(), token: token.clone() };
    let mut client = access.connect().await?.workers();
    let hello = v1::Hello { run: run.to_string(), worker: worker.0, pid: std::process::id() };
    Outbox(outgoing.downgrade()).send(Message::Hello(hello));
    let refused = |source| {
        let (coordinator, run, worker) = (coordinator.clone(), run.clone(), *worker);
        OpenError::Refused { coordinator, run, worker, source }
    };
    let request = Request::new(UnboundedReceiverStream::new(messages));
    let mut stream = client.connect(request).await.map_err(refused)?.into_inner();
    let command = stream.message().await.map_err(refused)?.and_then(|command| command.command);
    let invalid = |source| OpenError::Welcome { coordinator: coordinator.clone(), source };
    match command {
        Some(Command::Welcome(welcome)) => Ok((stream, welcome.try_into().map_err(invalid)?)),
        _ => Err(invalid(WireError::Missing("command.welcome"))),
    }
}
