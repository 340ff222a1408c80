//! Commands of the core, carried out: messages to agents and workers, requests to the recorder, events to watchers.

use whimbrel_core::{Command, Formation, Notice, RunEvent};
use whimbrel_plan::{NodeId, RunId, WorkerId};
use whimbrel_proto::v1::{self, agent_command::Command as ToAgent, worker_command::Command as ToWorker};

use super::{Driver, input::Input, node_name};
use crate::{
    events::{self, StepTiming},
    record::{
        recorder::Request,
        report::{Report, TermReport},
    },
};

/// By these variables libraries learn how many threads to compute with.
const THREAD_VARIABLES: [&str; 4] =
    ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"];

impl Driver {
    /// Carries out a command. Does nothing for a run that is not hosted here.
    pub(super) fn execute(&mut self, command: Command) {
        match command {
            Command::Prepare { run, node } => self.prepare(&run, node),
            Command::Start { run, node, worker } => self.start_worker(&run, node, worker),
            Command::Kill { run, node, worker } => self.kill_worker(&run, node, worker),
            Command::Form { run, formation } => self.form(run, formation),
            Command::Ask { run, worker, generation, checkpoint, halt } => {
                self.send_to_worker(&run, worker, ToWorker::Ask(v1::Ask { generation, checkpoint, halt }));
            }
            Command::Interrupt { run, worker, generation } => {
                self.send_to_worker(&run, worker, ToWorker::Interrupt(v1::Interrupt { generation }));
            }
            Command::Leave { run, worker, reason } => {
                self.send_to_worker(&run, worker, ToWorker::Leave(v1::Leave { reason }));
            }
            Command::Commit { run, generation, step } => self.commit(run, generation, step),
            Command::Discard { run, generation, step } => {
                if let Some(hosted) = self.hosted.get_mut(&run) {
                    hosted.slices.discard(generation, step);
                }
            }
            Command::Quarantine { run, manifest, reason } => {
                if let Some(hosted) = self.hosted.get(&run) {
                    hosted.request(Request::Quarantine { manifest, reason });
                }
            }
            Command::RecordEnd { run, end } => {
                if let Some(hosted) = self.hosted.get(&run) {
                    hosted.request(Request::End(end));
                }
            }
            Command::Announce { run, notice } => self.announce(&run, notice),
        }
    }

    fn prepare(&mut self, run: &RunId, node: NodeId) {
        let Some(hosted) = self.hosted.get(run) else { return };
        let setup = hosted.spec.setup.clone().unwrap_or_default();
        let environment = hosted.spec.workers.environment.clone().into_iter().collect();
        let prepare = v1::Prepare { run: run.to_string(), setup, environment };
        self.send_to_agent(node, ToAgent::Prepare(prepare));
    }

    fn start_worker(&mut self, run: &RunId, node: NodeId, worker: WorkerId) {
        let Some(hosted) = self.hosted.get(run) else { return };
        let threads = hosted.spec.workers.threads.to_string();
        let threads = THREAD_VARIABLES.map(|name| (name.to_owned(), threads.clone()));
        let environment = threads.into_iter().chain(hosted.spec.workers.environment.clone()).collect();
        let command = hosted.spec.command.clone();
        let start = v1::StartWorker { run: run.to_string(), worker: worker.0, command, environment };
        self.send_to_agent(node, ToAgent::Start(start));
    }

    fn kill_worker(&mut self, run: &RunId, node: NodeId, worker: WorkerId) {
        if let Some(hosted) = self.hosted.get_mut(run) {
            hosted.connections.remove(worker);
        }
        let stop = v1::StopWorker { run: run.to_string(), worker: worker.0, grace_ms: 0 };
        self.send_to_agent(node, ToAgent::Stop(stop));
    }

    /// Sends a new generation to its members.
    fn form(&mut self, run: RunId, formation: Formation) {
        let Some(hosted) = self.hosted.get_mut(&run) else { return };
        match hosted.generation(formation) {
            Ok(generation) => {
                let wire = v1::Generation::from(&generation);
                for member in &generation.members {
                    hosted.connections.send(member.worker, ToWorker::Generation(wire.clone()));
                }
            }
            Err(error) => {
                let reason = format!("no random bytes for a generation's key: {error}");
                self.report(run, RunEvent::TermLost { reason });
            }
        }
    }

    fn commit(&mut self, run: RunId, generation: u64, step: u64) {
        let Some(hosted) = self.hosted.get_mut(&run) else { return };
        match hosted.commit_request(generation, step) {
            Ok(request) => hosted.request(request),
            Err(reason) => self.report(run, RunEvent::CommitFailed { step, reason }),
        }
    }

    /// Gives the core an event after the commands that it has just issued are carried out.
    fn report(&mut self, run: RunId, event: RunEvent) {
        let Some(epoch) = self.hosted.get(&run).map(|hosted| hosted.epoch) else { return };
        // The driver holds the receiver.
        self.reports.0.send(TermReport { run, epoch, report: Report::Event(event) }).ok();
    }

    fn announce(&mut self, run: &RunId, notice: Notice) {
        let Some(hosted) = self.hosted.get_mut(run) else { return };
        if let Notice::WorkerExited { worker, .. } = &notice {
            // A worker whose node is lost may still run: no message of it counts any more.
            hosted.connections.remove(*worker);
        }
        // Watchers do not see the end of a term that a panic has ended: the run is opened again.
        if hosted.reopening.is_some() && matches!(notice, Notice::Phase { .. }) {
            return;
        }
        let timing = match notice {
            Notice::Step { .. } => hosted.step_timing(),
            _ => StepTiming::default(),
        };
        let event = events::event(notice, &hosted.facts(), timing, |node| node_name(&self.nodes, node));
        match (event, &mut hosted.reopening) {
            (v1::run_event::Event::Ended(end), Some(reopening)) => {
                reopening.end = Some(end);
                hosted.end_term();
            }
            (event @ v1::run_event::Event::Ended(_), None) => {
                hosted.announce(event);
                hosted.close();
            }
            (event, _) => hosted.announce(event),
        }
    }

    /// Sends a command to an agent. Never waits: a node whose buffer is full counts as lost.
    pub(super) fn send_to_agent(&mut self, node: NodeId, command: ToAgent) {
        let Some(agent) = self.nodes.get(&node).map(|node| &node.agent) else { return };
        if agent.try_send(v1::AgentCommand { command: Some(command) }).is_err() {
            tracing::warn!(%node, "the agent does not read its commands; its connection is dropped");
            self.inputs.send(Input::NodeDisconnected(node, "the agent does not read its commands".into()));
        }
    }

    fn send_to_worker(&mut self, run: &RunId, worker: WorkerId, command: ToWorker) {
        if let Some(hosted) = self.hosted.get_mut(run) {
            hosted.connections.send(worker, command);
        }
    }

    pub(super) fn send_heartbeats(&mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.send_to_agent(node, ToAgent::Heartbeat(v1::AgentCoordinatorHeartbeat {}));
        }
        for hosted in self.hosted.values_mut() {
            hosted.connections.send_heartbeats();
        }
    }
}
