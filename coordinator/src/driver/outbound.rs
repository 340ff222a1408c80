//! What the core commands, done.

use whimbrel_core::{Command, Notice, RunEvent};
use whimbrel_plan::{NodeId, RunId, WorkerId};
use whimbrel_proto::v1;

use super::{Driver, node_name};
use crate::{driver::input::Input, events, record::recorder::Task};

impl Driver {
    pub(super) fn execute(&mut self, command: Command) {
        use v1::{agent_command::Command as ToAgent, worker_command::Command as ToWorker};
        match command {
            Command::Prepare { run, node } => {
                let Some(hosted) = self.hosted.get(&run) else { return };
                let setup = hosted.spec.setup.clone().unwrap_or_default();
                let environment = hosted.spec.workers.environment.clone().into_iter().collect();
                self.send(node, ToAgent::Prepare(v1::Prepare { run: run.to_string(), setup, environment }));
            }
            Command::Start { run, node, worker } => {
                let Some(hosted) = self.hosted.get(&run) else { return };
                let environment = hosted.spec.workers.environment.clone().into_iter().collect();
                let command = hosted.spec.command.clone();
                let start = v1::StartWorker { run: run.to_string(), worker: worker.0, command, environment };
                self.send(node, ToAgent::Start(start));
            }
            Command::Kill { run, node, worker } => {
                if let Some(hosted) = self.hosted.get_mut(&run) {
                    hosted.links.remove(&worker);
                }
                let stop = v1::StopWorker { run: run.to_string(), worker: worker.0, grace_ms: 0 };
                self.send(node, ToAgent::Stop(stop));
            }
            Command::Form { run, formation } => {
                let Some(hosted) = self.hosted.get_mut(&run) else { return };
                match hosted.generation(formation) {
                    Ok(generation) => {
                        let wire = v1::Generation::from(&generation);
                        for member in &generation.members {
                            hosted.send(member.worker, ToWorker::Generation(wire.clone()));
                        }
                    }
                    Err(error) => {
                        let reason = format!("no random bytes for a generation's key: {error}");
                        self.inputs.send(Input::OfTerm(run, hosted.epoch, RunEvent::TermLost { reason }));
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
                let Some(hosted) = self.hosted.get_mut(&run) else { return };
                match hosted.commit(generation, step) {
                    Ok(task) => hosted.order(task),
                    Err(reason) => {
                        let failed = RunEvent::CommitFailed { step, reason };
                        self.inputs.send(Input::OfTerm(run, hosted.epoch, failed));
                    }
                }
            }
            Command::Discard { run, generation, step } => {
                if let Some(hosted) = self.hosted.get_mut(&run) {
                    hosted.discard(generation, step);
                }
            }
            Command::Quarantine { run, manifest, reason } => {
                if let Some(hosted) = self.hosted.get(&run) {
                    hosted.order(Task::Quarantine { manifest, reason });
                }
            }
            Command::RecordEnd { run, end } => {
                if let Some(hosted) = self.hosted.get(&run) {
                    hosted.order(Task::End(end));
                }
            }
            Command::Announce { run, notice } => {
                let Some(hosted) = self.hosted.get_mut(&run) else { return };
                if let Notice::WorkerExited { worker, .. } = &notice {
                    // Its process may live on where its node was lost by silence: it is not listened to any more.
                    hosted.links.remove(worker);
                }
                let event = events::event(hosted, notice, |node| node_name(&self.nodes, node));
                let is_last = matches!(event, v1::run_event::Event::Ended(_));
                say(&run, &event);
                hosted.tell(event);
                if is_last {
                    hosted.close();
                }
            }
        }
    }

    pub(super) fn send(&mut self, node: NodeId, command: v1::agent_command::Command) {
        let Some(link) = self.nodes.get(&node).map(|node| &node.link) else { return };
        if link.try_send(v1::AgentCommand { command: Some(command) }).is_err() {
            tracing::warn!(%node, "its agent does not take its commands; the connection is dropped");
            self.nodes.remove(&node);
            self.inputs.send(Input::NodeGone(node, "it does not take its commands".into()));
        }
    }

    pub(super) fn send_worker(
        &mut self,
        run: &RunId,
        worker: WorkerId,
        command: v1::worker_command::Command,
    ) {
        if let Some(hosted) = self.hosted.get_mut(run) {
            hosted.send(worker, command);
        }
    }

    pub(super) fn send_heartbeats(&mut self) {
        use v1::{agent_command::Command as ToAgent, worker_command::Command as ToWorker};
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.send(node, ToAgent::Heartbeat(v1::AgentCoordinatorHeartbeat {}));
        }
        for hosted in self.hosted.values_mut() {
            for worker in hosted.links.keys().copied().collect::<Vec<_>>() {
                hosted.send(worker, ToWorker::Heartbeat(v1::CoordinatorHeartbeat {}));
            }
        }
    }
}

/// What the coordinator's own log says of an event.
pub(super) fn say(run: &RunId, event: &v1::run_event::Event) {
    use v1::run_event::Event;
    match event {
        Event::Warning(v1::WarningEvent { text, .. }) => tracing::warn!(%run, "{text}"),
        Event::Generation(formed) => {
            tracing::info!(%run, generation = formed.generation, workers = formed.workers, step = formed.step, "generation formed");
        }
        Event::Exit(exit) => {
            tracing::info!(%run, worker = exit.worker, reason = exit.reason, "worker exited")
        }
        Event::Replicated(v1::ReplicatedEvent { replica: Some(replica), bytes, .. }) => {
            tracing::info!(%run, replica = replica.uri, checkpoint = replica.checkpoint, bytes, "replicated");
        }
        Event::Ended(ended) => {
            tracing::info!(%run, phase = ended.phase().as_str_name(), step = ended.step, reason = ended.reason, "run ended");
        }
        _ => {}
    }
}
