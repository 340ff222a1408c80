//! What a run's recorder and replica tasks report to the driver: plain facts, marked with the run and its epoch.

use std::time::Duration;

use tokio::sync::mpsc;
use whimbrel_core::RunEvent;
use whimbrel_plan::RunId;

use crate::record::replica_status::ReplicaStatus;

/// A report of one of a run's tasks. The driver drops it if the run is hosted under another epoch by now.
#[derive(Debug)]
pub(crate) struct TermReport {
    pub(crate) run: RunId,
    pub(crate) epoch: u64,
    pub(crate) report: Report,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Report {
    /// Something that the core decides about.
    Event(RunEvent),
    /// The recorder committed a checkpoint.
    Committed(CommittedCheckpoint),
    /// Checkpoints arrived in a replica.
    Replicated(Replicated),
    /// Something went wrong and was handled; for watchers.
    Warning(String),
    /// The run's end is in the log; the recorder now waits for the replicas.
    FinishingReplicas,
}

/// A checkpoint that is in the run's log.
#[derive(Debug)]
pub(crate) struct CommittedCheckpoint {
    /// Steps applied.
    pub(crate) step: u64,
    /// The manifest's name in the run's directory.
    pub(crate) manifest: String,
    /// Bytes of its packs.
    pub(crate) bytes: u64,
    /// From the staging of the first slice to the commit.
    pub(crate) duration: Duration,
    /// The longest time for which a worker stopped training to stage its slice.
    pub(crate) stall: Duration,
}

/// A round of replication that brought new checkpoints.
#[derive(Debug)]
pub(crate) struct Replicated {
    /// The replica's status after the round.
    pub(crate) replica: ReplicaStatus,
    /// The step of the run's newest checkpoint.
    pub(crate) newest_of_run: Option<u64>,
    /// Bytes that were sent.
    pub(crate) bytes: u64,
    /// How long the round took.
    pub(crate) duration: Duration,
}

/// Sends the reports of one run and term to the driver.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) run: RunId,
    pub(crate) epoch: u64,
    pub(crate) driver: mpsc::UnboundedSender<TermReport>,
}

impl Reporter {
    pub(crate) fn send(&self, report: Report) {
        let report = TermReport { run: self.run.clone(), epoch: self.epoch, report };
        if self.driver.send(report).is_err() {
            tracing::debug!(run = %self.run, "the driver has ended; a report is dropped");
        }
    }

    pub(crate) fn event(&self, event: RunEvent) {
        self.send(Report::Event(event));
    }

    pub(crate) fn warning(&self, text: String) {
        self.send(Report::Warning(text));
    }
}
