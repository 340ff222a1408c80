//! The connections to a run's workers.

use std::collections::BTreeMap;

use whimbrel_plan::{RunId, WorkerId};
use whimbrel_proto::v1;

use crate::driver::input::WorkerSender;

/// The senders of commands to a run's workers.
#[derive(Debug)]
pub(crate) struct Connections {
    run: RunId,
    workers: BTreeMap<WorkerId, WorkerSender>,
}

impl Connections {
    pub(crate) fn new(run: RunId) -> Self {
        Self { run, workers: BTreeMap::new() }
    }

    /// Adds a worker's connection; returns false if it has one already.
    pub(crate) fn add(&mut self, worker: WorkerId, sender: WorkerSender) -> bool {
        if self.workers.contains_key(&worker) {
            return false;
        }
        self.workers.insert(worker, sender);
        true
    }

    /// Drops a worker's connection: nothing is sent to it any more, and its stream ends.
    pub(crate) fn remove(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// Sends a command to a worker. Never waits: the connection of a worker whose buffer is full is dropped, and the core
    /// notices the silence or the end of the stream.
    pub(crate) fn send(&mut self, worker: WorkerId, command: v1::worker_command::Command) {
        let Some(sender) = self.workers.get(&worker) else { return };
        if sender.try_send(v1::WorkerCommand { command: Some(command) }).is_err() {
            tracing::warn!(run = %self.run, %worker, "the worker does not read its commands; its connection is dropped");
            self.workers.remove(&worker);
        }
    }

    /// Sends a heartbeat to every worker.
    pub(crate) fn send_heartbeats(&mut self) {
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.send(worker, v1::worker_command::Command::Heartbeat(v1::CoordinatorHeartbeat {}));
        }
    }
}
