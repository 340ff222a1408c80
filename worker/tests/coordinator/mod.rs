//! A coordinator that does what a test says, over real gRPC on loopback, and a store in a temporary folder.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod linear;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::interval,
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use whimbrel_plan::{Generation, Member, Origin, RunId, WorkerId, equal_shares};
use whimbrel_proto::v1::{
    self,
    worker_command::Command,
    worker_message::Message,
    workers_server::{Workers, WorkersServer},
};
use whimbrel_store::{HostedBy, Store, Term};
use whimbrel_worker::Environment;

/// Long enough for the slowest machine; a test that waits it out has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const SHARDS: u32 = 6;
pub const GLOBAL_BATCH: u32 = 12;
pub const SEED: u64 = 7;
pub const TOKEN: &str = "let me in";

/// The spec that is stored with the run.
pub const SPEC: &str = r#"
name = "linear"
command = ["linear"]

[train]
steps = 30
global_batch = 12
shards = 6
seed = 7

[train.settings]
rate = 0.5
"#;

type Commands = UnboundedSender<Result<v1::WorkerCommand, Status>>;

/// A test's coordinator.
pub struct Coordinator {
    pub run: RunId,
    pub term: Term,
    address: SocketAddr,
    commands: Arc<Mutex<BTreeMap<u64, Commands>>>,
    messages: Receiver<(u64, Message)>,
    /// Messages that no test has asked for yet.
    backlog: Vec<(u64, Message)>,
    addresses: BTreeMap<u64, SocketAddr>,
    generations: u64,
    pub runtime: Option<Runtime>,
    _folder: tempfile::TempDir,
}

impl Coordinator {
    /// A run of `steps` steps; `change` changes its settings.
    pub fn new(steps: u64, change: impl FnOnce(&mut v1::Welcome)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run: RunId = "linear-x1".parse().unwrap();
        let runtime = Runtime::new().unwrap();
        let directory = Store::open(folder.path().to_str().unwrap()).unwrap().run(&run);
        let term = runtime.block_on(async {
            directory.create(SPEC, HostedBy::Embedded).await.unwrap();
            directory.start_term("a test").await.unwrap()
        });
        let mut welcome = v1::Welcome {
            epoch: term.epoch(),
            uri: directory.uri().to_owned(),
            seed: SEED,
            steps,
            global_batch: GLOBAL_BATCH,
            shards: SHARDS,
            settings: r#"{"rate":0.5}"#.to_owned(),
            evaluate_every: None,
            checkpoint_every: None,
            reduction: v1::Reduction::Exact.into(),
            on_nonfinite: v1::OnNonfinite::Stop.into(),
            step_timeout_ms: DEADLINE.as_millis() as u64,
            replicas: Vec::new(),
            bandwidth: None,
            threads: 1,
            step: 0,
        };
        change(&mut welcome);
        let (sender, messages) = channel();
        let commands = Arc::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let hosted = HostedRun {
            welcome,
            commands: Arc::clone(&commands),
            messages: sender,
            readers: Mutex::default(),
        };
        runtime.handle().spawn(
            tonic::transport::Server::builder()
                .add_service(WorkersServer::new(hosted))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let (backlog, addresses, generations, runtime) = (Vec::new(), BTreeMap::new(), 0, Some(runtime));
        Self {
            run,
            term,
            address,
            commands,
            messages,
            backlog,
            addresses,
            generations,
            runtime,
            _folder: folder,
        }
    }

    /// What the agent would tell worker `worker`.
    pub fn environment(&self, worker: u64) -> Environment {
        Environment {
            coordinator: self.address.into(),
            run: self.run.clone(),
            worker: WorkerId(worker),
            token: Some(TOKEN.to_owned()),
            advertise: [127, 0, 0, 1].into(),
        }
    }

    /// Runs something of the store's.
    pub fn block_on<T>(&mut self, work: impl AsyncFnOnce(&mut Term) -> T) -> T {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(work(&mut self.term))
    }

    pub fn send(&self, worker: u64, command: Command) {
        let commands = self.commands.lock().unwrap();
        commands[&worker].send(Ok(v1::WorkerCommand { command: Some(command) })).unwrap();
    }

    pub fn ask(&self, worker: u64, checkpoint: bool, halt: bool) {
        self.send(worker, Command::Ask(v1::Ask { generation: self.generations, checkpoint, halt }));
    }

    pub fn interrupt(&self, worker: u64) {
        self.send(worker, Command::Interrupt(v1::Interrupt { generation: self.generations }));
    }

    pub fn leave(&self, worker: u64) {
        self.send(worker, Command::Leave(v1::Leave { reason: "the play is over".to_owned() }));
    }

    /// Forms the next generation of workers that are ready; each with the step of the state it holds. Returns its
    /// number.
    pub fn form(&mut self, members: &[(u64, Option<u64>)], origin: Origin) -> u64 {
        self.generations += 1;
        let shares = equal_shares(SHARDS, members.len());
        let member = |(&(worker, holds), share): (&(u64, Option<u64>), u32)| Member {
            worker: WorkerId(worker),
            address: self.addresses[&worker],
            share,
            holds,
        };
        let generation = Generation {
            run: self.run.clone(),
            epoch: self.term.epoch(),
            number: self.generations,
            shards: SHARDS,
            origin,
            members: members.iter().zip(shares).map(member).collect(),
            key: [9; 32],
        };
        for (worker, _) in members {
            self.send(*worker, Command::Generation((&generation).into()));
        }
        self.generations
    }

    /// The first message of `worker`, not asked for before, that is what it should be.
    pub fn next<T>(&mut self, worker: u64, what: &str, pick: impl Fn(&Message) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.backlog.iter().enumerate().find_map(|(index, (from, message))| {
                let picked = if *from == worker { pick(message) } else { None };
                picked.map(|picked| (index, picked))
            });
            if let Some((index, picked)) = found {
                self.backlog.remove(index);
                return picked;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok((_, Message::Heartbeat(_))) => {}
                Ok(message) => self.backlog.push(message),
                Err(_) => panic!("w{worker} did not say {what}; what was said: {:#?}", self.backlog),
            }
        }
    }

    /// Waits until these workers are ready.
    pub fn ready(&mut self, workers: &[u64]) {
        for &worker in workers {
            let ready = self.next(worker, "Ready", |message| match message {
                Message::Ready(ready) => Some(ready.clone()),
                _ => None,
            });
            assert!(ready.numerics.contains("whimbrel-worker"), "{}", ready.numerics);
            self.knows(worker, &ready);
        }
    }

    /// Notes where a worker that is ready is reached.
    pub fn knows(&mut self, worker: u64, ready: &v1::Ready) {
        self.addresses.insert(worker, ready.data_address.parse().unwrap());
    }

    pub fn halted(&mut self, worker: u64) -> v1::Halted {
        self.next(worker, "Halted", |message| match message {
            Message::Halted(halted) => Some(halted.clone()),
            _ => None,
        })
    }

    pub fn completed(&mut self, worker: u64) -> v1::Completed {
        self.next(worker, "Completed", |message| match message {
            Message::Completed(completed) => Some(completed.clone()),
            _ => None,
        })
    }

    pub fn saved(&mut self, worker: u64) -> v1::SliceSaved {
        self.next(worker, "SliceSaved", |message| match message {
            Message::SliceSaved(saved) => Some(saved.clone()),
            _ => None,
        })
    }

    pub fn failed(&mut self, worker: u64) -> v1::TrainerFailed {
        self.next(worker, "TrainerFailed", |message| match message {
            Message::TrainerFailed(failed) => Some(failed.clone()),
            _ => None,
        })
    }

    /// The next step that `worker` says is applied.
    pub fn applied(&mut self, worker: u64) -> v1::StepApplied {
        self.next(worker, "StepApplied", |message| match message {
            Message::StepApplied(applied) => Some(applied.clone()),
            _ => None,
        })
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The gRPC side.
struct HostedRun {
    welcome: v1::Welcome,
    commands: Arc<Mutex<BTreeMap<u64, Commands>>>,
    messages: Sender<(u64, Message)>,
    readers: Mutex<JoinSet<()>>,
}

#[tonic::async_trait]
impl Workers for HostedRun {
    type ConnectStream = UnboundedReceiverStream<Result<v1::WorkerCommand, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let token = request.metadata().get("authorization").and_then(|token| token.to_str().ok());
        if token != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("wrong token"));
        }
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|message| message.message);
        let Some(Message::Hello(hello)) = first else { return Err(Status::invalid_argument("no hello")) };
        let (commands, receiver) = unbounded_channel();
        let command = |command| Ok(v1::WorkerCommand { command: Some(command) });
        commands.send(command(Command::Welcome(self.welcome.clone()))).unwrap();
        self.commands.lock().unwrap().insert(hello.worker, commands.clone());
        let (all, messages) = (Arc::clone(&self.commands), self.messages.clone());
        let read = async move {
            let mut heartbeats = interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    _ = heartbeats.tick() => {
                        let _gone = commands.send(command(Command::Heartbeat(v1::CoordinatorHeartbeat {}))).is_err();
                    }
                    message = stream.message() => match message {
                        Ok(Some(v1::WorkerMessage { message: Some(message) })) => {
                            let _over = messages.send((hello.worker, message)).is_err();
                        }
                        _ => break,
                    },
                }
            }
            // With the last sender the stream to the worker ends.
            all.lock().unwrap().remove(&hello.worker);
        };
        self.readers.lock().unwrap().spawn(read);
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}
