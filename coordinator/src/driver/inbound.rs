//! What agents and workers say, made into events.

use tonic::Status;
use whimbrel_core::{Cause, Event, Exit, RunEvent};
use whimbrel_plan::{NodeId, RunId, WorkerId};
use whimbrel_proto::{border, v1};

use super::{Driver, Node};
use crate::{driver::input::{NodeLink, Reply, WorkerLink}, events};

impl Driver {
    pub(super) fn node_joined(&mut self, join: v1::Join, link: NodeLink, reply: Reply<NodeId>) {
        self.last_node += 1;
        let node = NodeId(self.last_node);
        if reply.send(node).is_err() {
            return;
        }
        tracing::info!(%node, name = join.name, provider = join.provider, slots = join.slots, "node joined");
        self.nodes.insert(node, Node { name: join.name, link });
        let welcome = v1::NodeWelcome { node: node.0 };
        self.send(node, v1::agent_command::Command::Welcome(welcome));
        self.decide(Event::NodeJoined { node, slots: join.slots });
    }

    pub(super) fn node_says(&mut self, node: NodeId, message: v1::agent_message::Message) {
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
                let hosted = border::run_id(&output.run).ok().and_then(|run| self.hosted.get_mut(&run));
                if let Some(hosted) = hosted {
                    hosted.output.print(output.worker, output.lines);
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

    pub(super) fn worker_called(
        &mut self,
        run: &RunId,
        worker: WorkerId,
        link: WorkerLink,
    ) -> Result<v1::Welcome, Status> {
        let unknown =
            || Status::not_found(format!("this coordinator started no worker {worker} of run {run}"));
        let hosted =
            self.hosted.get_mut(run).filter(|_| self.core.expects(run, worker)).ok_or_else(unknown)?;
        if hosted.links.contains_key(&worker) {
            return Err(Status::already_exists(format!("worker {worker} of run {run} has called already")));
        }
        let welcome = hosted.welcome()?;
        hosted.links.insert(worker, link);
        Ok(welcome)
    }

    pub(super) fn worker_says(&mut self, run: RunId, worker: WorkerId, message: v1::worker_message::Message) {
        match self.event_of(&run, worker, message) {
            Ok(Some(event)) => self.of_run(run, event),
            Ok(None) => {}
            // What makes no sense once makes no sense the next time: it is another version, or broken.
            Err(reason) => self.of_run(run, RunEvent::WorkerLost { worker, reason }),
        }
    }

    pub(super) fn event_of(
        &mut self,
        run: &RunId,
        worker: WorkerId,
        message: v1::worker_message::Message,
    ) -> Result<Option<RunEvent>, String> {
        use v1::worker_message::Message;
        let Some(hosted) = self.hosted.get_mut(run) else { return Ok(None) };
        Ok(Some(match message {
            Message::Hello(_) => return Err("it says hello twice".into()),
            Message::Ready(ready) => {
                hosted.describe(worker, &ready).map_err(|error| error.to_string())?;
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
                    hosted.tell(events::warning(text));
                }
                hosted.step = Some(applied);
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
                hosted.keep_slice(worker, saved).map_err(|error| error.to_string())?;
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
            Message::Healed(v1::Healed { manifest, packs, .. }) => {
                let (count, uri) = (packs.len(), hosted.dir.uri());
                let text = format!(
                    "{count} packs of {manifest} were missing or damaged in {uri} and are whole there again: worker \
                     {worker} read them from a replica and put them back"
                );
                tracing::warn!(%run, "{text}");
                hosted.tell(events::warning(text));
                return Ok(None);
            }
            Message::TrainerFailed(v1::TrainerFailed { reason }) => {
                RunEvent::TrainerFailed { worker, reason }
            }
        }))
    }
}
