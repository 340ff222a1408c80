//! The one task that owns the core: it feeds events to the core and carries out its commands.
//!
//! | file | what |
//! | --- | --- |
//! | `input` | what reaches the driver from the gRPC services |
//! | `opening` | runs that are submitted, resumed or adopted; questions that wait for them |
//! | `reopening` | runs that are opened again after one of their tasks panicked |
//! | `requests` | what clients ask about runs |
//! | `inbound` | messages of agents and workers, turned into events |
//! | `outbound` | commands of the core, turned into messages and requests |
//! | `hosted_run` | what the driver keeps of a run beside the core |
//! | `tasks` | the tasks that the driver starts, and their panics |

pub(crate) mod hosted_run;
mod inbound;
pub(crate) mod input;
mod opening;
mod outbound;
pub(crate) mod reopening;
mod requests;
mod tasks;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use whimbrel_core::{Core, Event, RunEvent, SaveCost, Start, Timing};
use whimbrel_plan::{NodeId, RunId};
use whimbrel_proto::v1;
use whimbrel_store::{HostedBy, Store};

use self::{
    hosted_run::HostedRun,
    input::{AgentSender, Input, Inputs, Reply},
    opening::Openings,
    tasks::Tasks,
};
use crate::{
    events,
    open::adopt::{Discovery, adopt},
    record::{
        output_writer,
        report::{Report, TermReport},
    },
};

/// How often the core gets the time.
const TICK: Duration = Duration::from_millis(100);
/// How often agents and workers get a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The core's clock advances by at most this much between two events. If the process or its machine was suspended, the messages
/// that arrived meanwhile are read before the core counts their senders as silent.
const LONGEST_CLOCK_STEP: Duration = Duration::from_secs(1);
/// On shutdown, runs have this long to save a checkpoint and stop: longer than the core allows them.
const STOP_TIMEOUT: Duration = Duration::from_secs(180);
/// After that, recorders and output writers have this long to finish their writes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Owns the core, the connections to agents, and a [`HostedRun`] for each run that this coordinator leads.
#[derive(Debug)]
pub(crate) struct Driver {
    core: Core,
    /// The core's time, and when it was last advanced.
    clock: (Duration, Instant),
    store: Store,
    hosted_by: HostedBy,
    /// This coordinator's name in the logs of runs.
    name: String,
    inputs: Inputs,
    /// What runs' tasks report; the sender is cloned for each run.
    reports: (mpsc::UnboundedSender<TermReport>, mpsc::UnboundedReceiver<TermReport>),
    hosted: BTreeMap<RunId, HostedRun>,
    openings: Openings,
    /// The statuses of runs in the store that this coordinator does not host.
    archive: BTreeMap<RunId, v1::RunStatus>,
    nodes: BTreeMap<NodeId, Node>,
    last_node: u64,
    /// Recorders, replica tasks, output writers, and runs being opened.
    tasks: Tasks,
    shutdown: Option<(Reply<()>, Instant)>,
    /// Cancelled on shutdown, for the tasks.
    shutting_down: CancellationToken,
}

/// A node that has joined.
#[derive(Debug)]
struct Node {
    name: String,
    agent: AgentSender,
}

impl Driver {
    pub(crate) fn new(
        store: Store,
        hosted_by: HostedBy,
        name: String,
        inputs: Inputs,
        timing: Timing,
    ) -> Self {
        Self {
            core: Core::new(timing),
            clock: (Duration::ZERO, Instant::now()),
            store,
            hosted_by,
            name,
            inputs,
            reports: mpsc::unbounded_channel(),
            hosted: BTreeMap::new(),
            openings: Openings::new(hosted_by),
            archive: BTreeMap::new(),
            nodes: BTreeMap::new(),
            last_node: 0,
            tasks: Tasks::default(),
            shutdown: None,
            shutting_down: CancellationToken::new(),
        }
    }

    /// Takes inputs until a shutdown is asked for and every run has stopped. The server spawns it once.
    pub(crate) async fn drive(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        let (sender, mut discoveries) = mpsc::unbounded_channel::<Discovery>();
        if self.hosted_by == HostedBy::Service {
            let (store, name, shutdown) = (self.store.clone(), self.name.clone(), self.shutting_down.clone());
            self.tasks.spawn(adopt(store, name, sender, shutdown));
        }
        let mut tick = interval(TICK);
        let mut heartbeat = interval(HEARTBEAT);
        let mut flush = interval(output_writer::FLUSH_INTERVAL);
        for clock in [&mut tick, &mut heartbeat, &mut flush] {
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        while !self.may_end() {
            tokio::select! {
                Some(input) = inputs.recv() => self.take(input),
                Some(discovery) = discoveries.recv() => self.take(Input::Discovered(discovery)),
                Some(report) = self.reports.1.recv() => self.take_report(report),
                Some(ended) = self.tasks.join_next() => {
                    if let Some(panic) = ended {
                        self.term_panicked(panic);
                    }
                }
                _ = tick.tick() => {
                    self.decide(Event::Tick);
                    self.start_due_reopenings();
                }
                _ = heartbeat.tick() => self.send_heartbeats(),
                _ = flush.tick() => self.hosted.values_mut().for_each(|hosted| hosted.output.flush()),
            }
        }
        // Later inputs fail at their sender; the next coordinator deals with what they are about.
        drop(inputs);
        self.finish().await;
    }

    /// Whether a shutdown that was asked for is due: every run has ended or is released, and its workers have ended; or
    /// [`STOP_TIMEOUT`] has passed.
    fn may_end(&self) -> bool {
        let Some((_, since)) = &self.shutdown else { return false };
        if since.elapsed() > STOP_TIMEOUT {
            tracing::error!(
                "not every run stopped within {} s; the rest is released",
                STOP_TIMEOUT.as_secs()
            );
            return true;
        }
        self.core.views().iter().all(|(_, view)| view.phase.has_ended() && view.workers.is_empty())
    }

    /// Lets recorders and output writers carry out their last requests, then answers the shutdown.
    async fn finish(mut self) {
        self.hosted.values_mut().for_each(HostedRun::close);
        self.hosted.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(WRITE_TIMEOUT, all).await.is_err() {
            tracing::error!("not everything was written to the store within {} s", WRITE_TIMEOUT.as_secs());
        }
        if let Some((reply, _)) = self.shutdown {
            reply.send(()).ok();
        }
    }

    fn take(&mut self, input: Input) {
        if self.must_wait(&input) {
            return self.openings.defer(input);
        }
        // A caller may have gone: an answer that cannot be sent is dropped.
        match input {
            Input::Submit(what, reply) => self.open(what, reply),
            Input::Opened(run, opened, reply) => {
                reply.send(opened.and_then(|opened| self.host(opened))).ok();
                self.opening_ended(run);
            }
            Input::Reopened(run, result) => self.reopened(run, *result),
            Input::Discovered(discovery) => self.discovered(discovery),
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
            // The backlog is sent once: not to a client that has gone.
            Input::Watch(_, reply) if reply.is_closed() => {}
            Input::Watch(run, reply) => drop(reply.send(self.watch(&run))),
            Input::Logs(run, reply) => drop(reply.send(self.logs(&run))),
            Input::NodeJoined(join, agent, reply) => self.node_joined(join, agent, reply),
            Input::FromNode(node, message) => self.node_message(node, message),
            Input::NodeDisconnected(node, reason) => self.node_disconnected(node, reason),
            Input::WorkerConnected(run, worker, sender, reply) => {
                reply.send(self.worker_connected(&run, worker, sender)).ok();
            }
            Input::FromWorker(run, worker, message) => self.worker_message(run, worker, message),
            Input::WorkerDisconnected(run, worker, reason) => self.worker_disconnected(run, worker, &reason),
            Input::Shutdown(reply) => {
                self.shutdown = Some((reply, Instant::now()));
                self.shutting_down.cancel();
                self.give_up_all_reopenings();
                for run in self.hosted.keys().cloned().collect::<Vec<_>>() {
                    self.run_event(run, RunEvent::StopRequested { record: false });
                }
            }
        }
    }

    /// Takes a report of one of a run's tasks, unless it is of an earlier term.
    fn take_report(&mut self, TermReport { run, epoch, report }: TermReport) {
        let Some(hosted) = self.hosted.get_mut(&run).filter(|hosted| hosted.epoch == epoch) else { return };
        match report {
            Report::Event(event) => {
                if let RunEvent::Quarantined { start } = &event {
                    hosted.checkpoint = Some(start.step()).filter(|_| *start != Start::Initial);
                }
                self.run_event(run, event);
            }
            Report::Committed(committed) => {
                let (step, manifest) = (committed.step, committed.manifest.clone());
                let cost = SaveCost { stall: committed.stall, duration: committed.duration };
                hosted.checkpoint = Some(step);
                hosted.announce(events::committed(committed));
                self.run_event(run, RunEvent::Committed { step, manifest, cost });
            }
            Report::Replicated(replicated) => hosted.announce(events::replicated(&replicated)),
            Report::Warning(text) => hosted.announce(events::warning(text)),
            Report::FinishingReplicas => hosted.finishing_replicas(),
        }
    }

    fn run_event(&mut self, run: RunId, event: RunEvent) {
        self.decide(Event::OfRun { run, event });
    }

    /// Gives an event to the core and carries out its commands.
    fn decide(&mut self, event: Event) {
        if event != Event::Tick {
            tracing::trace!(?event, "event");
        }
        let (now, advanced) = &mut self.clock;
        *now += advanced.elapsed().min(LONGEST_CLOCK_STEP);
        *advanced = Instant::now();
        for command in self.core.handle(*now, event) {
            tracing::trace!(?command, "command");
            self.execute(command);
        }
    }
}

fn node_name(nodes: &BTreeMap<NodeId, Node>, node: NodeId) -> String {
    nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.clone())
}
