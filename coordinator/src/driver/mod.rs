//! The one task that owns the core: it feeds it, and executes what it commands.
//!
//! `coming` is about runs that are opened and taken up; `hearing` makes events of what agents and workers say;
//! `executing` does what the core commands; what clients ask, and the loop itself, is here.

pub(crate) mod hosted_run;
mod inbound;
pub(crate) mod input;
mod opening;
mod outbound;

use std::{
    collections::BTreeMap,
    iter,
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use whimbrel_core::{Core, Event, Phase, RunEvent, SaveCost, Start, Timing};
use whimbrel_plan::{NodeId, RunId};
use whimbrel_proto::v1;
use whimbrel_store::{Mode, Store};

use self::opening::Coming;

use crate::{driver::{hosted_run::{seconds, HostedRun}, input::{Input, Inputs, NodeLink, Reply}}, events, open::adopt, record::output_writer};

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
const SETTLE: Duration = Duration::from_secs(60);

/// Owns the core, the links to agents and workers, and a hosted for each run.
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
    hosted: BTreeMap<RunId, HostedRun>,
    coming: Coming,
    /// Runs in the store that nobody here works on.
    archive: BTreeMap<RunId, v1::RunStatus>,
    nodes: BTreeMap<NodeId, Node>,
    last_node: u64,
    /// Recorders, outputs, and runs being opened.
    tasks: JoinSet<()>,
    shutdown: Option<(Reply<()>, Instant)>,
    /// Tells the runs' tasks of it.
    shutting_down: CancellationToken,
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
            hosted: BTreeMap::new(),
            coming: Coming::new(submitter),
            archive: BTreeMap::new(),
            nodes: BTreeMap::new(),
            last_node: 0,
            tasks: JoinSet::new(),
            shutdown: None,
            shutting_down: CancellationToken::new(),
        }
    }

    /// Takes inputs until told to shut down and all runs are let go of.
    pub(crate) async fn drive(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        if self.submitter == Mode::Service {
            let (store, name, inputs) = (self.store.clone(), self.name.clone(), self.inputs.clone());
            self.tasks.spawn(adopt::adopt(store, name, inputs, self.shutting_down.clone()));
        }
        let mut tick = interval(TICK);
        let mut heartbeat = interval(HEARTBEAT);
        let mut flush = interval(output_writer::INTERVAL);
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
                _ = flush.tick() => self.hosted.values_mut().for_each(|hosted| hosted.output.flush()),
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

    /// Lets recorders and outputs finish what they were told, then says that all is done.
    async fn settle(mut self) {
        self.hosted.values_mut().for_each(HostedRun::close);
        self.hosted.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SETTLE, all).await.is_err() {
            tracing::error!("not everything reached the store within {} s", SETTLE.as_secs());
        }
        if let Some((reply, _)) = self.shutdown {
            reply.send(()).ok();
        }
    }

    fn take(&mut self, input: Input) {
        if self.has_to_wait(&input) {
            return self.coming.wait(input);
        }
        match input {
            Input::LookedThrough => {
                self.coming.looked_through();
                self.answer_those_that_waited();
            }
            Input::TakingUp(status, reply) => {
                reply.send(self.taking_up(*status)).ok();
            }
            Input::Submit(what, reply) => self.open(what, reply),
            Input::Opened(run, opened, reply) => {
                self.opened(*opened, reply);
                self.has_come(run);
            }
            Input::Found(status) => self.found(*status),
            Input::NotTakenUp(status) => self.not_taken_up(*status),
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
            // What is told once is not told to nobody.
            Input::Watch(_, reply) if reply.is_closed() => {}
            Input::Watch(run, reply) => {
                reply.send(self.watch(&run)).ok();
            }
            Input::Logs(run, reply) => {
                let printed = self.hosted.get_mut(&run).map(|hosted| hosted.output.printed());
                let printed = printed.or_else(|| {
                    self.archive
                        .contains_key(&run)
                        .then(|| output_writer::Printed::of_old(self.store.run(&run)))
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
                if let Some(hosted) = self.hosted.get_mut(&run) {
                    hosted.links.remove(&worker);
                }
                tracing::debug!(%run, %worker, reason, "its attendance has ended");
                self.of_run(run, RunEvent::WorkerDisconnected { worker });
            }
            Input::OfTerm(run, epoch, event) => {
                if let Some(hosted) = self.hosted.get_mut(&run).filter(|hosted| hosted.epoch == epoch) {
                    if let RunEvent::Quarantined { start } = &event {
                        hosted.checkpoint = Some(start.step()).filter(|_| *start != Start::Initial);
                    }
                    self.of_run(run, event);
                }
            }
            Input::Tell(run, epoch, event) => {
                if let Some(hosted) = self.hosted.get_mut(&run).filter(|hosted| hosted.epoch == epoch) {
                    outbound::say(&run, &event);
                    hosted.tell(event);
                }
            }
            Input::Parting(run, epoch) => {
                if let Some(hosted) = self.hosted.get_mut(&run).filter(|hosted| hosted.epoch == epoch)
                    && !hosted.replicas().is_empty()
                {
                    hosted.parting = true;
                    let (phase, detail) = (v1::Phase::Stopping.into(), events::PARTING.to_owned());
                    hosted.tell(v1::run_event::Event::Phase(v1::PhaseEvent { phase, detail }));
                }
            }
            Input::Committed(run, epoch, event) => {
                let Some(hosted) = self.hosted.get_mut(&run).filter(|hosted| hosted.epoch == epoch) else {
                    return;
                };
                let (step, manifest) = (event.step, event.manifest.clone());
                let cost =
                    SaveCost { stall: seconds(event.blocked_seconds), duration: seconds(event.seconds) };
                hosted.checkpoint = Some(step);
                hosted.tell(v1::run_event::Event::Checkpoint(event));
                self.of_run(run, RunEvent::Committed { step, manifest, cost });
            }
            Input::Shutdown(reply) => {
                self.shutdown = Some((reply, Instant::now()));
                self.shutting_down.cancel();
                for run in self.hosted.keys().cloned().collect::<Vec<_>>() {
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

    /// Passes on what a client wants of a run that has not ended.
    fn request(&mut self, run: &RunId, event: RunEvent) -> Result<(), Status> {
        let Some(view) = self.core.view(run) else {
            return Err(match self.archive.get(run) {
                Some(status) if status.detail.is_empty() => {
                    Status::failed_precondition(format!("run {run} is not under way"))
                }
                Some(v1::RunStatus { detail, .. }) => {
                    Status::failed_precondition(format!("run {run} is not under way here: {detail}"))
                }
                None => Status::not_found(format!("there is no run {run} here")),
            });
        };
        if has_ended(view.phase) {
            return Err(Status::failed_precondition(format!("run {run} has ended already")));
        }
        self.of_run(run.clone(), event);
        Ok(())
    }

    fn status(&self, run: &RunId) -> Option<v1::RunStatus> {
        match (self.hosted.get(run), self.core.view(run)) {
            (Some(hosted), Some(view)) => {
                Some(events::status(hosted, view, |node| node_name(&self.nodes, node)))
            }
            _ => self.archive.get(run).cloned(),
        }
    }

    /// How a run stands and what went wrong before anybody watched, and the events that come: none if nobody here works
    /// on it.
    fn watch(&mut self, run: &RunId) -> Option<(Vec<v1::RunEvent>, broadcast::Receiver<v1::RunEvent>)> {
        let status = v1::RunEvent { event: Some(v1::run_event::Event::Status(self.status(run)?)) };
        let hosted = self.hosted.get_mut(run);
        let (untold, events) = hosted.map_or_else(|| (Vec::new(), broadcast::channel(1).1), HostedRun::watch);
        Some((iter::once(status).chain(untold).collect(), events))
    }

    fn statuses(&self) -> Vec<v1::RunStatus> {
        let here = self.core.views().into_iter().map(|(id, _)| id);
        self.archive.keys().cloned().chain(here).filter_map(|id| self.status(&id)).collect()
    }
}

fn has_ended(phase: Phase) -> bool {
    matches!(phase, Phase::Stopped | Phase::Finished | Phase::Failed | Phase::Cancelled)
}

fn node_name(nodes: &BTreeMap<NodeId, Node>, node: NodeId) -> String {
    nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.clone())
}
