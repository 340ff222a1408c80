//! The status of a hosted run, and of its replicas.

use std::time::Duration;

use whimbrel_core::{Phase, RunView};
use whimbrel_plan::NodeId;
use whimbrel_proto::v1;
use whimbrel_spec::RunSpec;
use whimbrel_store::RunDir;

use crate::{
    events::{FINISHING_REPLICAS, interval::explain, phase},
    record::replica_status::ReplicaStatus,
};

/// What the driver knows of a hosted run beside the core.
#[derive(Debug)]
pub(crate) struct HostedFacts<'a> {
    pub(crate) spec: &'a RunSpec,
    pub(crate) dir: &'a RunDir,
    /// The step of the newest checkpoint.
    pub(crate) checkpoint: Option<u64>,
    pub(crate) replicas: Vec<ReplicaStatus>,
    /// The run's end is recorded, and the recorder waits for the replicas.
    pub(crate) is_finishing_replicas: bool,
    /// Why the run is to be opened again, and when, after a panic has ended its term.
    pub(crate) reopening: Option<&'a str>,
    /// Since the driver began to host the run.
    pub(crate) age: Duration,
}

impl HostedFacts<'_> {
    pub(super) fn replica_statuses(&self) -> Vec<v1::ReplicaStatus> {
        self.replicas.iter().map(|replica| replica_status(replica, self.checkpoint)).collect()
    }
}

/// The status of a hosted run.
pub(crate) fn run_status(
    hosted: &HostedFacts<'_>,
    view: RunView,
    node_name: impl Fn(NodeId) -> String,
) -> v1::RunStatus {
    let workers = view.workers.into_iter().map(|worker| v1::WorkerStatus {
        worker: worker.worker.0,
        rank: worker.rank,
        pid: worker.pid.unwrap_or(0),
        node: node_name(worker.node),
        state: worker.state.to_owned(),
        share: worker.share,
    });
    let (phase, detail) = match hosted.reopening {
        Some(detail) => (v1::Phase::Waiting, detail.to_owned()),
        None if hosted.is_finishing_replicas && view.phase == Phase::Stopping => {
            (v1::Phase::Stopping, FINISHING_REPLICAS.to_owned())
        }
        None => (phase(view.phase), view.detail),
    };
    v1::RunStatus {
        run: hosted.dir.id().to_string(),
        name: hosted.spec.name.clone(),
        uri: hosted.dir.uri().to_owned(),
        phase: phase.into(),
        detail,
        step: view.step,
        steps: hosted.spec.train.steps,
        generation: view.generation,
        epoch: view.epoch,
        workers: workers.collect(),
        loss: view.loss,
        val_loss: view.val_loss,
        checkpoint: view.checkpoint,
        workers_min: hosted.spec.workers.min,
        workers_max: hosted.spec.workers.max,
        interval: view.interval.map_or_else(|| hosted.spec.checkpoint.every.to_string(), explain),
        replicas: hosted.replica_statuses(),
        save_failure: view
            .save_failure
            .map(|failure| format!("step {}: {}", failure.step, failure.reason))
            .unwrap_or_default(),
    }
}

/// The status of a replica; `newest_of_run` is the step of the run's newest checkpoint.
pub(crate) fn replica_status(replica: &ReplicaStatus, newest_of_run: Option<u64>) -> v1::ReplicaStatus {
    v1::ReplicaStatus {
        uri: replica.uri.clone(),
        checkpoint: replica.newest,
        steps_behind: newest_of_run.unwrap_or(0).saturating_sub(replica.newest.unwrap_or(0)),
        bytes_behind: replica.missing_bytes,
        problem: replica.problem.clone().unwrap_or_default(),
        up_to_date: replica.is_up_to_date(),
    }
}
