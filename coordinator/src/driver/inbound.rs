//! Messages of agents and workers, turned into events for the core.

use tonic::Status;
use whimbrel_core::{Cause, Completion, Event, Exit, RunEvent};
use whimbrel_plan::{NodeId, RunId, WorkerId};
use whimbrel_proto::{border, v1};

use super::{
    Driver, Node,
    hosted_run::HostedRun,
    input::{AgentSender, Reply, WorkerSender},
};
use crate::events;

impl Driver {
    pub(super) fn node_joined(&mut self, join: v1::Join, agent: AgentSender, reply: Reply<NodeId>) {
        self.last_node += 1;
        let node = NodeId(self.last_node);
        if reply.send(node).is_err() {
            return;
        }
        tracing::info!(%node, name = join.name, provider = join.provider, slots = join.slots, "node joined");
        self.nodes.insert(node, Node { name: join.name, agent });
        let welcome = v1::NodeWelcome { node: node.0 };
        self.send_to_agent(node, v1::agent_command::Command::Welcome(welcome));
        self.decide(Event::NodeJoined { node, slots: join.slots });
    }

    pub(super) fn node_message(&mut self, node: NodeId, message: v1::agent_message::Message) {
        if !self.core.has_node(node) {
            // The core gave the node up for its silence. Its stream ends with this; the agent ends its workers and joins anew.
            self.nodes.remove(&node);
            return;
        }
        self.decide(Event::NodeHeartbeat { node });
        match self.agent_event(node, message) {
            Ok(Some((run, event))) => self.run_event(run, event),
            Ok(None) => {}
            Err(error) => tracing::warn!(%node, %error, "an invalid message of an agent is ignored"),
        }
    }

    /// The event of an agent's message; none for messages that the core need not know.
    fn agent_event(
        &mut self,
        node: NodeId,
        message: v1::agent_message::Message,
    ) -> Result<Option<(RunId, RunEvent)>, border::WireError> {
        use v1::agent_message::Message;
        let (run, event) = match message {
            Message::Join(_) => {
                tracing::warn!(%node, "an agent sends `join` twice; ignored");
                return Ok(None);
            }
            Message::Heartbeat(_) => return Ok(None),
            Message::Output(output) => {
                let hosted = border::run_id(&output.run).ok().and_then(|run| self.hosted.get_mut(&run));
                if let Some(hosted) = hosted {
                    hosted.output.print(output.worker, output.lines);
                }
                return Ok(None);
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
                let (worker, exit) = (WorkerId(exited.worker), exit(exited.how));
                (exited.run, RunEvent::WorkerExited { worker, exit, tail: exited.tail })
            }
        };
        Ok(Some((border::run_id(&run)?, event)))
    }

    pub(super) fn node_disconnected(&mut self, node: NodeId, reason: String) {
        if self.nodes.remove(&node).is_some() {
            self.decide(Event::NodeLost { node, reason });
        }
    }

    /// Answers a worker's `Hello`. Refuses a worker that the core did not start or that is connected already.
    pub(super) fn worker_connected(
        &mut self,
        run: &RunId,
        worker: WorkerId,
        sender: WorkerSender,
    ) -> Result<v1::Welcome, Status> {
        let unknown =
            || Status::not_found(format!("this coordinator started no worker {worker} of run {run}"));
        let hosted =
            self.hosted.get_mut(run).filter(|_| self.core.expects(run, worker)).ok_or_else(unknown)?;
        let welcome = hosted.welcome(self.core.view(run).map_or(0, |view| view.step))?;
        if !hosted.connections.add(worker, sender) {
            return Err(Status::already_exists(format!("worker {worker} of run {run} is connected already")));
        }
        Ok(welcome)
    }

    pub(super) fn worker_disconnected(&mut self, run: RunId, worker: WorkerId, reason: &str) {
        if let Some(hosted) = self.hosted.get_mut(&run) {
            hosted.connections.remove(worker);
        }
        tracing::debug!(%run, %worker, reason, "a worker's stream has ended");
        self.run_event(run, RunEvent::WorkerDisconnected { worker });
    }

    pub(super) fn worker_message(
        &mut self,
        run: RunId,
        worker: WorkerId,
        message: v1::worker_message::Message,
    ) {
        let Some(hosted) = self.hosted.get_mut(&run) else { return };
        match worker_event(hosted, worker, message) {
            Ok(Some(event)) => self.run_event(run, event),
            Ok(None) => {}
            // A worker that sends one invalid message sends more: it is of another version, or defective.
            Err(reason) => self.run_event(run, RunEvent::WorkerLost { worker, reason }),
        }
    }
}

/// How a worker's process ended.
fn exit(how: Option<v1::worker_exited::How>) -> Exit {
    use v1::worker_exited::How;
    match how {
        Some(How::Code(code)) => Exit::Code(code),
        Some(How::Signal(signal)) => Exit::Signal(signal),
        Some(How::StartError(reason)) => Exit::Unstarted(reason),
        None => Exit::Unstarted("the agent did not say how it ended".into()),
    }
}

/// The event of a worker's message; none for messages that the core need not know. Fails, with the reason, if the message makes
/// no sense.
fn worker_event(
    hosted: &mut HostedRun,
    worker: WorkerId,
    message: v1::worker_message::Message,
) -> Result<Option<RunEvent>, String> {
    use v1::worker_message::Message;
    Ok(Some(match message {
        Message::Hello(_) => return Err("it sends `hello` twice".into()),
        Message::Ready(ready) => {
            hosted.describe(worker, &ready).map_err(|error| error.to_string())?;
            let address = ready
                .data_address
                .parse()
                .map_err(|_| format!("its data address {:?} is not IP:PORT", ready.data_address))?;
            tracing::debug!(run = %hosted.id(), %worker, %address, numerics = ready.numerics, "worker ready");
            RunEvent::WorkerReady { worker, address }
        }
        Message::Heartbeat(heartbeat) => RunEvent::WorkerHeartbeat { worker, step: heartbeat.step },
        Message::StepApplied(applied) => step_applied(hosted, worker, applied),
        Message::Halted(v1::Halted { generation, step, cause: halt }) => {
            let cause = cause(halt.ok_or("it does not say why it halted")?);
            RunEvent::Halted { worker, generation, step, cause }
        }
        Message::SliceSaved(saved) => {
            let (generation, step) = (saved.generation, saved.step);
            hosted.slices.add(worker, saved).map_err(|error| error.to_string())?;
            RunEvent::SliceSaved { worker, generation, step }
        }
        Message::SliceFailed(v1::SliceFailed { generation, step, reason }) => {
            RunEvent::SliceFailed { worker, generation, step, reason }
        }
        Message::Evaluated(v1::Evaluated { step, val_loss, .. }) => RunEvent::Evaluated { step, val_loss },
        Message::Completed(v1::Completed { generation, step, state, loss, val_loss }) => {
            let state = border::hash("state", &state).map_err(|error| error.to_string())?;
            let completion = Completion { step, state: *state.as_bytes(), loss, val_loss };
            RunEvent::Completed { worker, generation, completion }
        }
        Message::RestoreFailed(v1::RestoreFailed { generation, manifest, damaged, reason }) => {
            RunEvent::RestoreFailed { worker, generation, manifest, damaged, reason }
        }
        Message::Healed(v1::Healed { manifest, packs, .. }) => {
            let (count, uri) = (packs.len(), hosted.dir().uri());
            let text = format!(
                "{count} packs of {manifest} were missing or damaged in {uri} and are whole there again: worker {worker} \
                 read them from a replica and put them back"
            );
            hosted.announce(events::warning(text));
            return Ok(None);
        }
        Message::TrainerFailed(v1::TrainerFailed { reason, fatal }) => {
            RunEvent::TrainerFailed { worker, reason, fatal }
        }
    }))
}

fn step_applied(hosted: &mut HostedRun, worker: WorkerId, applied: v1::StepApplied) -> RunEvent {
    let v1::StepApplied { generation, step, loss, .. } = applied;
    if let Some(tensor) = &applied.skipped {
        let text = format!("step {step}: tensor {tensor} of the gradient is not finite; no update was made");
        hosted.announce(events::warning(text));
    }
    hosted.step_timer.report(applied);
    RunEvent::StepApplied { worker, generation, step, loss }
}

fn cause(halt: v1::halted::Cause) -> Cause {
    match halt {
        v1::halted::Cause::Agreed(v1::Agreed {}) => Cause::Agreed,
        v1::halted::Cause::Broken(v1::Broken { reason, suspect }) => {
            Cause::Broken { reason, suspect: suspect.map(WorkerId) }
        }
    }
}
