//! The one task that owns the core: it feeds it, and executes what it commands.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tonic::Status;
use whimbrel_core::{Cause, Command, Core, Event, Exit, Notice, Phase, RunEvent, Timing};
use whimbrel_plan::{NodeId, RunId, WorkerId};
use whimbrel_proto::{border, v1};
use whimbrel_store::{Mode, Store};

use crate::{
    desk::Desk,
    input::{Input, Inputs, NodeLink, Reply},
    opening::{self, Opened, SubmitError},
    recorder::{self, Task},
    scribe::{self, Scribe},
    wire,
};

/// How often the core is told that time has passed.
const TICK: Duration = Duration::from_millis(100);
/// How often agents and workers are told that the coordinator lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// However long the driver was kept from looking at the clock, the core takes no more than this to have passed: when the
/// process was stopped, or its machine, what others said meanwhile is still to be read.
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// Once told to shut down, runs have this long to save a checkpoint and stop: longer than the core gives them.
const DRAIN: Duration = Duration::from_secs(180);
/// Once told to shut down, what is still on its way to the store has this long to arrive there.
const SETTLE: Duration = Duration::from_secs(30);

/// Owns the core, the links to agents and workers, and a desk for each run.
#[derive(Debug)]
pub(crate) struct Driver {
    core: Core,
    /// What the core takes for the time, and when it was last looked at.
    clock: (Duration, Instant),
    store: Store,
    submitter: Mode,
    /// What this coordinator calls itself in the logs of runs.
    name: String,
    inputs: Inputs,
    desks: BTreeMap<RunId, Desk>,
    /// The store is being looked through for runs to take up; questions about runs wait until that is done.
    adopting: bool,
    waiting: Vec<Input>,
    /// Runs in the store that nobody here works on.
    archive: BTreeMap<RunId, v1::RunStatus>,
    nodes: BTreeMap<NodeId, Node>,
    last_node: u64,
    /// Recorders, scribes, and runs being opened.
    tasks: JoinSet<()>,
    shutdown: Option<(Reply<()>, Instant)>,
}

/// An agent's node.
#[derive(Debug)]
struct Node {
    name: String,
    link: NodeLink,
}

impl Driver {
    pub(crate) fn new(store: Store, submitter: Mode, name: String, inputs: Inputs, timing: Timing) -> Self {
        Self {
            core: Core::new(timing),
            clock: (Duration::ZERO, Instant::now()),
            store,
            submitter,
            name,
            inputs,
            desks: BTreeMap::new(),
            adopting: submitter == Mode::Service,
            waiting: Vec::new(),
            archive: BTreeMap::new(),
            nodes: BTreeMap::new(),
            last_node: 0,
            tasks: JoinSet::new(),
            shutdown: None,
        }
    }

    /// Takes inputs until told to shut down and all runs are let go of.
    pub(crate) async fn drive(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        if self.submitter == Mode::Service {
            self.tasks.spawn(opening::adopt(self.store.clone(), self.name.clone(), self.inputs.clone()));
        }
        let mut tick = interval(TICK);
        let mut heartbeat = interval(HEARTBEAT);
        let mut flush = interval(scribe::INTERVAL);
        for clock in [&mut tick, &mut heartbeat, &mut flush] {
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        while !self.may_end() {
            tokio::select! {
                Some(input) = inputs.recv() => self.take(input),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a task of the coordinator came to grief");
                    }
                }
                _ = tick.tick() => self.decide(Event::Tick),
                _ = heartbeat.tick() => self.send_heartbeats(),
                _ = flush.tick() => self.desks.values_mut().for_each(|desk| desk.scribe.flush()),
            }
        }
        // Whoever still has something to say finds nobody: what it was about is left to the next coordinator.
        drop(inputs);
        self.settle().await;
    }

    /// Whether the shutdown that was asked for may come: every run has ended, or is let go of, and its workers too; or
    /// they have had all the time there is.
    fn may_end(&self) -> bool {
        let Some((_, since)) = &self.shutdown else { return false };
        if since.elapsed() > DRAIN {
            tracing::error!("not every run came to a stop within {} s; they are let go of", DRAIN.as_secs());
            return true;
        }
        let gone = |view: &whimbrel_core::RunView| {
            matches!(view.phase, Phase::Stopped | Phase::Finished | Phase::Failed | Phase::Cancelled)
                && view.workers.is_empty()
        };
        self.core.views().iter().all(|(_, view)| gone(view))
    }

    /// Lets recorders and scribes finish what they were told, then says that all is done.
    async fn settle(mut self) {
        self.desks.values_mut().for_each(Desk::close);
        self.desks.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SETTLE, all).await.is_err() {
            tracing::error!("not everything reached the store within {} s", SETTLE.as_secs());
        }
        if let Some((reply, _)) = self.shutdown {
            reply.send(()).ok();
        }
    }

    fn take(&mut self, input: Input) {
        if self.adopting && input.is_question() {
            return self.waiting.push(input);
        }
        match input {
            Input::Adopted => {
                self.adopting = false;
                for input in std::mem::take(&mut self.waiting) {
                    self.take(input);
                }
            }
            Input::Submit(what, reply) => self.open(what, reply),
            Input::Opened(opened, reply) => self.opened(*opened, reply),
            Input::Archived(status) => {
                if let Ok(id) = border::run_id(&status.run)
                    && !self.desks.contains_key(&id)
                {
                    self.archive.insert(id, *status);
                }
            }
            // Whoever asked may have gone: an answer that nobody takes is dropped.
            Input::List(reply) => drop(reply.send(self.statuses())),
            Input::Get(run, reply) => drop(reply.send(self.status(&run))),
            Input::Cancel(run, reply) => {
                let request = self.request(&run, RunEvent::CancelRequested);
                reply.send(request).ok();
            }
            Input::Stop(run, reply) => {
                let request = self.request(&run, RunEvent::StopRequested { record: true });
                reply.send(request).ok();
            }
            Input::Watch(run, reply) => {
                // Of a run that nobody here works on there is nothing to come.
                let events = self.desks.get(&run).map_or_else(|| broadcast::channel(1).1, Desk::watch);
                reply.send(self.status(&run).map(|status| (status, events))).ok();
            }
            Input::Logs(run, reply) => {
                let printed = self.desks.get_mut(&run).map(|desk| desk.scribe.printed());
                let printed = printed.or_else(|| {
                    self.archive.contains_key(&run).then(|| scribe::Printed::of_old(self.store.run(&run)))
                });
                reply.send(printed).ok();
            }
            Input::NodeJoined(join, link, reply) => self.node_joined(join, link, reply),
            Input::FromNode(node, message) => self.node_says(node, message),
            Input::NodeGone(node, reason) => {
                if self.nodes.remove(&node).is_some() {
                    self.decide(Event::NodeLost { node, reason });
                }
            }
            Input::WorkerCalled(run, worker, link, reply) => {
                reply.send(self.worker_called(&run, worker, link)).ok();
            }
            Input::FromWorker(run, worker, message) => self.worker_says(run, worker, message),
            Input::WorkerGone(run, worker, reason) => {
                if let Some(desk) = self.desks.get_mut(&run) {
                    desk.links.remove(&worker);
                }
                tracing::debug!(%run, %worker, reason, "its attendance has ended");
                self.of_run(run, RunEvent::WorkerParted { worker });
            }
            Input::Recorded(run, event) => self.of_run(run, event),
            Input::Committed(run, event) => {
                let (step, manifest) = (event.step, event.manifest.clone());
                if let Some(desk) = self.desks.get_mut(&run) {
                    desk.checkpoint = Some(step);
                    desk.tell(v1::run_event::Event::Checkpoint(event));
                }
                self.of_run(run, RunEvent::Committed { step, manifest });
            }
            Input::Shutdown(reply) => {
                self.shutdown = Some((reply, Instant::now()));
                for run in self.desks.keys().cloned().collect::<Vec<_>>() {
                    self.of_run(run, RunEvent::StopRequested { record: false });
                }
            }
        }
    }

    fn of_run(&mut self, run: RunId, event: RunEvent) {
        self.decide(Event::OfRun { run, event });
    }

    /// Has the core decide, and does what it says.
    fn decide(&mut self, event: Event) {
        let quiet = event == Event::Tick;
        if !quiet {
            tracing::trace!(?event, "event");
        }
        let (now, looked) = &mut self.clock;
        *now += looked.elapsed().min(LONGEST_STEP);
        *looked = Instant::now();
        for command in self.core.handle(*now, event) {
            tracing::trace!(?command, "command");
            self.execute(command);
        }
    }

    fn execute(&mut self, command: Command) {
        use v1::{agent_command::Command as ToAgent, worker_command::Command as ToWorker};
        match command {
            Command::Prepare { run, node } => {
                let Some(desk) = self.desks.get(&run) else { return };
                let setup = desk.spec.setup.clone().unwrap_or_default();
                let environment = desk.spec.workers.environment.clone().into_iter().collect();
                self.send(node, ToAgent::Prepare(v1::Prepare { run: run.to_string(), setup, environment }));
            }
            Command::Start { run, node, worker } => {
                let Some(desk) = self.desks.get(&run) else { return };
                let environment = desk.spec.workers.environment.clone().into_iter().collect();
                let command = desk.spec.command.clone();
                let start = v1::StartWorker { run: run.to_string(), worker: worker.0, command, environment };
                self.send(node, ToAgent::Start(start));
            }
            Command::Kill { run, node, worker } => {
                if let Some(desk) = self.desks.get_mut(&run) {
                    desk.links.remove(&worker);
                }
                let stop = v1::StopWorker { run: run.to_string(), worker: worker.0, grace_ms: 0 };
                self.send(node, ToAgent::Stop(stop));
            }
            Command::Form { run, formation } => {
                let Some(desk) = self.desks.get_mut(&run) else { return };
                match desk.generation(formation) {
                    Ok(generation) => {
                        let wire = v1::Generation::from(&generation);
                        for member in &generation.members {
                            desk.send(member.worker, ToWorker::Generation(wire.clone()));
                        }
                    }
                    Err(error) => {
                        let reason = format!("no random bytes for a generation's key: {error}");
                        self.inputs.send(Input::Recorded(run, RunEvent::OfficeLost { reason }));
                    }
                }
            }
            Command::Ask { run, worker, generation, checkpoint, halt } => {
                self.send_worker(&run, worker, ToWorker::Ask(v1::Ask { generation, checkpoint, halt }));
            }
            Command::Interrupt { run, worker, generation } => {
                self.send_worker(&run, worker, ToWorker::Interrupt(v1::Interrupt { generation }));
            }
            Command::Leave { run, worker, reason } => {
                self.send_worker(&run, worker, ToWorker::Leave(v1::Leave { reason }));
            }
            Command::Commit { run, generation, step } => {
                let Some(desk) = self.desks.get_mut(&run) else { return };
                match desk.commit(generation, step) {
                    Ok(task) => desk.order(task),
                    Err(reason) => {
                        self.inputs.send(Input::Recorded(run, RunEvent::CommitFailed { step, reason }))
                    }
                }
            }
            Command::Discard { run, generation, step } => {
                if let Some(desk) = self.desks.get_mut(&run) {
                    desk.discard(generation, step);
                }
            }
            Command::Quarantine { run, manifest, reason } => {
                if let Some(desk) = self.desks.get(&run) {
                    desk.order(Task::Quarantine { manifest, reason });
                }
            }
            Command::RecordEnd { run, end } => {
                if let Some(desk) = self.desks.get(&run) {
                    desk.order(Task::End(end));
                }
            }
            Command::Announce { run, notice } => {
                let Some(desk) = self.desks.get_mut(&run) else { return };
                if let Notice::WorkerExited { worker, .. } = &notice {
                    // Its process may live on where its node was lost by silence: it is not listened to any more.
                    desk.links.remove(worker);
                }
                let event = wire::event(desk, notice, |node| node_name(&self.nodes, node));
                let is_last = matches!(event, v1::run_event::Event::Ended(_));
                say(&run, &event);
                desk.tell(event);
                if is_last {
                    desk.close();
                }
            }
        }
    }

    fn send(&mut self, node: NodeId, command: v1::agent_command::Command) {
        let Some(link) = self.nodes.get(&node).map(|node| &node.link) else { return };
        if link.try_send(v1::AgentCommand { command: Some(command) }).is_err() {
            tracing::warn!(%node, "its agent does not take its commands; the connection is dropped");
            self.nodes.remove(&node);
            self.inputs.send(Input::NodeGone(node, "it does not take its commands".into()));
        }
    }

    fn send_worker(&mut self, run: &RunId, worker: WorkerId, command: v1::worker_command::Command) {
        if let Some(desk) = self.desks.get_mut(run) {
            desk.send(worker, command);
        }
    }

    fn send_heartbeats(&mut self) {
        use v1::{agent_command::Command as ToAgent, worker_command::Command as ToWorker};
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.send(node, ToAgent::Heartbeat(v1::AgentCoordinatorHeartbeat {}));
        }
        for desk in self.desks.values_mut() {
            for worker in desk.links.keys().copied().collect::<Vec<_>>() {
                desk.send(worker, ToWorker::Heartbeat(v1::CoordinatorHeartbeat {}));
            }
        }
    }

    fn open(
        &mut self,
        what: v1::submit_request::What,
        reply: Reply<Result<v1::SubmitResponse, SubmitError>>,
    ) {
        use v1::submit_request::What;
        if self.shutdown.is_some() {
            reply.send(Err(SubmitError::ShuttingDown)).ok();
            return;
        }
        if let What::Resume(run) = &what
            && let Ok(id) = border::run_id(run)
            && self.core.view(&id).is_some_and(|view| !has_ended(view.phase))
        {
            reply.send(Err(SubmitError::UnderWay(id))).ok();
            return;
        }
        let (store, submitter) = (self.store.clone(), self.submitter);
        let (name, inputs) = (self.name.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let opened = match what {
                What::Spec(text) => opening::submit(&store, &text, submitter, &name).await,
                What::Resume(run) => opening::resume(&store, &run, &name).await,
            };
            inputs.send(Input::Opened(Box::new(opened), Some(reply)));
        });
    }

    fn opened(
        &mut self,
        opened: Result<Opened, SubmitError>,
        reply: Option<Reply<Result<v1::SubmitResponse, SubmitError>>>,
    ) {
        let opened = opened.and_then(|opened| self.admit(opened));
        let answer = opened.map(|Opened { dir, spec, office, start }| {
            let (id, epoch) = (dir.id().clone(), office.epoch());
            let response =
                v1::SubmitResponse { run: id.to_string(), uri: dir.uri().to_owned(), step: start.step() };
            let (orders, tasks) = mpsc::unbounded_channel();
            let (scribe, writing) = Scribe::new(dir.clone(), epoch);
            self.tasks.spawn(writing);
            let keep = spec.checkpoint.keep;
            self.tasks.spawn(recorder::record(office, keep, self.inputs.clone(), tasks));
            let facts = opening::facts(&spec);
            let checkpoint = matches!(start, whimbrel_core::Start::Checkpoint { .. }).then(|| start.step());
            self.archive.remove(&id);
            self.desks.insert(id.clone(), Desk::new(spec, dir, epoch, scribe, orders, checkpoint));
            tracing::info!(run = %id, epoch, step = start.step(), "office taken");
            self.decide(Event::RunOpened { run: id, facts, epoch, start });
            response
        });
        if let Some(reply) = reply {
            reply.send(answer).ok();
        }
    }

    /// Turns away a run that was opened too late: the coordinator is about to end, or a later opening has come before.
    fn admit(&self, opened: Opened) -> Result<Opened, SubmitError> {
        let id = opened.dir.id();
        if self.shutdown.is_some() {
            return Err(SubmitError::ShuttingDown);
        }
        match self.desks.get(id) {
            Some(desk) if desk.epoch >= opened.office.epoch() => Err(SubmitError::UnderWay(id.clone())),
            _ => Ok(opened),
        }
    }

    /// Passes on what a client wants of a run that has not ended.
    fn request(&mut self, run: &RunId, event: RunEvent) -> Result<(), Status> {
        let Some(view) = self.core.view(run) else {
            return Err(if self.archive.contains_key(run) {
                Status::failed_precondition(format!("run {run} is not under way"))
            } else {
                Status::not_found(format!("there is no run {run} here"))
            });
        };
        if has_ended(view.phase) {
            return Err(Status::failed_precondition(format!("run {run} has ended already")));
        }
        self.of_run(run.clone(), event);
        Ok(())
    }

    fn status(&self, run: &RunId) -> Option<v1::RunStatus> {
        match (self.desks.get(run), self.core.view(run)) {
            (Some(desk), Some(view)) => Some(wire::status(desk, view, |node| node_name(&self.nodes, node))),
            _ => self.archive.get(run).cloned(),
        }
    }

    fn statuses(&self) -> Vec<v1::RunStatus> {
        let here = self.core.views().into_iter().map(|(id, _)| id);
        self.archive.keys().cloned().chain(here).filter_map(|id| self.status(&id)).collect()
    }

    fn node_joined(&mut self, join: v1::Join, link: NodeLink, reply: Reply<NodeId>) {
        self.last_node += 1;
        let node = NodeId(self.last_node);
        if reply.send(node).is_err() {
            return;
        }
        tracing::info!(%node, name = join.name, provider = join.provider, slots = join.slots, "node joined");
        self.nodes.insert(node, Node { name: join.name, link });
        let welcome = v1::NodeWelcome { node: node.0, epoch: 0 };
        self.send(node, v1::agent_command::Command::Welcome(welcome));
        self.decide(Event::NodeJoined { node, slots: join.slots });
    }

    fn node_says(&mut self, node: NodeId, message: v1::agent_message::Message) {
        use v1::agent_message::Message;
        if !self.core.has_node(node) {
            // Given up for its silence, it speaks again: its agent ends its workers and joins anew.
            self.nodes.remove(&node);
            return;
        }
        self.decide(Event::NodeHeard { node });
        let (run, event) = match message {
            Message::Join(_) => return tracing::warn!(%node, "it joins twice; ignored"),
            Message::Heartbeat(_) => return,
            Message::Output(output) => {
                let desk = border::run_id(&output.run).ok().and_then(|run| self.desks.get_mut(&run));
                if let Some(desk) = desk {
                    desk.scribe.print(output.worker, output.lines);
                }
                return;
            }
            Message::Prepared(prepared) => (prepared.run, RunEvent::Prepared { node }),
            Message::PrepareFailed(failed) => {
                (failed.run, RunEvent::PrepareFailed { node, reason: failed.reason, tail: failed.tail })
            }
            Message::WorkerStarted(started) => {
                let worker = WorkerId(started.worker);
                (started.run, RunEvent::WorkerStarted { worker, pid: started.pid })
            }
            Message::WorkerExited(exited) => {
                use v1::worker_exited::How;
                let exit = match exited.how {
                    Some(How::Code(code)) => Exit::Code(code),
                    Some(How::Signal(signal)) => Exit::Signal(signal),
                    Some(How::Unstarted(reason)) => Exit::Unstarted(reason),
                    None => Exit::Unstarted("the agent did not say how it ended".into()),
                };
                let worker = WorkerId(exited.worker);
                (exited.run, RunEvent::WorkerExited { worker, exit, tail: exited.tail })
            }
        };
        match border::run_id(&run) {
            Ok(run) => self.of_run(run, event),
            Err(error) => tracing::warn!(%node, %error, "it says something that makes no sense"),
        }
    }

    fn worker_called(
        &mut self,
        run: &RunId,
        worker: WorkerId,
        link: crate::input::WorkerLink,
    ) -> Result<v1::Welcome, Status> {
        let unknown =
            || Status::not_found(format!("this coordinator started no worker {worker} of run {run}"));
        let desk = self.desks.get_mut(run).filter(|_| self.core.expects(run, worker)).ok_or_else(unknown)?;
        if desk.links.contains_key(&worker) {
            return Err(Status::already_exists(format!("worker {worker} of run {run} has called already")));
        }
        let welcome = desk.welcome()?;
        desk.links.insert(worker, link);
        Ok(welcome)
    }

    fn worker_says(&mut self, run: RunId, worker: WorkerId, message: v1::worker_message::Message) {
        match self.event_of(&run, worker, message) {
            Ok(Some(event)) => self.of_run(run, event),
            Ok(None) => {}
            // What makes no sense once makes no sense the next time: it is another version, or broken.
            Err(reason) => self.of_run(run, RunEvent::WorkerLost { worker, reason }),
        }
    }

    fn event_of(
        &mut self,
        run: &RunId,
        worker: WorkerId,
        message: v1::worker_message::Message,
    ) -> Result<Option<RunEvent>, String> {
        use v1::worker_message::Message;
        let Some(desk) = self.desks.get_mut(run) else { return Ok(None) };
        Ok(Some(match message {
            Message::Hello(_) => return Err("it says hello twice".into()),
            Message::Ready(ready) => {
                desk.describe(worker, &ready).map_err(|error| error.to_string())?;
                let address = ready
                    .data_address
                    .parse()
                    .map_err(|_| format!("its data address {:?} is not IP:PORT", ready.data_address))?;
                tracing::debug!(%run, %worker, %address, numerics = ready.numerics, "worker ready");
                RunEvent::WorkerReady { worker, address }
            }
            Message::Heartbeat(heartbeat) => RunEvent::WorkerHeard { worker, step: heartbeat.step },
            Message::StepApplied(applied) => {
                let v1::StepApplied { generation, step, loss, .. } = applied;
                if let Some(tensor) = &applied.skipped {
                    let text = format!(
                        "step {step}: tensor {tensor} of the gradient is not finite; no update was made"
                    );
                    desk.tell(v1::run_event::Event::Warning(v1::WarningEvent { text, tail: Vec::new() }));
                }
                desk.step = Some(applied);
                RunEvent::StepApplied { worker, generation, step, loss }
            }
            Message::Halted(halted) => {
                use v1::halted::Cause as Wire;
                let cause = match halted.cause.ok_or("it does not say why it halted")? {
                    Wire::Agreed(v1::Agreed {}) => Cause::Agreed,
                    Wire::Broken(v1::Broken { reason, suspect }) => {
                        Cause::Broken { reason, suspect: suspect.map(WorkerId) }
                    }
                };
                RunEvent::Halted { worker, generation: halted.generation, step: halted.step, cause }
            }
            Message::SliceSaved(saved) => {
                let (generation, step) = (saved.generation, saved.step);
                desk.keep_slice(worker, saved).map_err(|error| error.to_string())?;
                RunEvent::SliceSaved { worker, generation, step }
            }
            Message::SliceFailed(v1::SliceFailed { generation, step, reason }) => {
                RunEvent::SliceFailed { worker, generation, step, reason }
            }
            Message::Evaluated(v1::Evaluated { step, val_loss, .. }) => {
                RunEvent::Evaluated { step, val_loss }
            }
            Message::Completed(completed) => {
                let v1::Completed { generation, loss, val_loss, .. } = completed;
                let state = border::hash("state", &completed.state).map_err(|error| error.to_string())?;
                RunEvent::Completed { worker, generation, state: *state.as_bytes(), loss, val_loss }
            }
            Message::RestoreFailed(v1::RestoreFailed { generation, manifest, damaged, reason }) => {
                RunEvent::RestoreFailed { worker, generation, manifest, damaged, reason }
            }
            Message::TrainerFailed(v1::TrainerFailed { reason }) => {
                RunEvent::TrainerFailed { worker, reason }
            }
        }))
    }
}

fn has_ended(phase: Phase) -> bool {
    matches!(phase, Phase::Stopped | Phase::Finished | Phase::Failed | Phase::Cancelled)
}

fn node_name(nodes: &BTreeMap<NodeId, Node>, node: NodeId) -> String {
    nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.clone())
}

/// What the coordinator's own log says of an event.
fn say(run: &RunId, event: &v1::run_event::Event) {
    use v1::run_event::Event;
    match event {
        Event::Warning(v1::WarningEvent { text, .. }) => tracing::warn!(%run, "{text}"),
        Event::Generation(formed) => {
            tracing::info!(%run, generation = formed.generation, workers = formed.workers, step = formed.step, "generation formed");
        }
        Event::Exit(exit) => {
            tracing::info!(%run, worker = exit.worker, reason = exit.reason, "worker exited")
        }
        Event::Ended(ended) => {
            tracing::info!(%run, phase = ended.phase().as_str_name(), step = ended.step, reason = ended.reason, "run ended");
        }
        _ => {}
    }
}
