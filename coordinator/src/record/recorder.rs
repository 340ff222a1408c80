//! The one task that holds a run's term, and so the only one that writes its log.
//!
//! The driver sends it requests; it carries them out in order, one at a time. A commit never overlaps with the collection of
//! old checkpoints: the argument why collection deletes nothing that is needed depends on it (see `whimbrel_store`).

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use whimbrel_core::{End, Outcome, RunEvent, Start};
use whimbrel_proto::with_causes;
use whimbrel_state::{Hash, Manifest, Pack};
use whimbrel_store::{
    AppendError, CollectError, Collector, CommitError, Ended, QuarantineError, Record, Retention, Sources,
    Stopped, Store, Term, commit, quarantine, shell,
};

use crate::{
    open::facts::start_without,
    record::{
        damage_check::{DamageCheck, check_for_damage},
        replica_status::ReplicaStatus,
        replication::Replication,
        report::{CommittedCheckpoint, Report, Reporter},
    },
};

/// How often an idle recorder checks that it still holds the term.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often a write is tried again, on top of the store's own retries. After that the term counts as lost.
const ATTEMPTS: u32 = 20;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(3);
/// How many damage reports about a whole checkpoint are put down to chance. After that the run goes on without it.
const FALSE_REPORTS: u32 = 3;

/// A request to the recorder.
#[derive(Debug)]
pub(crate) enum Request {
    /// Commit a checkpoint all of whose slices are saved. Reported as `Committed` or `CommitFailed`.
    Commit {
        manifest: Box<Manifest>,
        /// When its first slice was staged.
        begun: Instant,
        /// The longest time for which a worker stopped training for it.
        stall: Duration,
    },
    /// Check a checkpoint that a worker reports as damaged. Reported as `Quarantined`.
    Quarantine { manifest: String, reason: String },
    /// Record that the run ends, then finish the replicas. Reported as `EndRecorded`.
    End(End),
}

/// Why this coordinator may not decide anything about the run any more.
struct TermLost(String);

/// Writes the log of one run for one term.
pub(crate) struct Recorder {
    term: Term,
    /// The run's directory, and its replicas for what that lacks.
    sources: Sources,
    /// Stores of replicas that could not be opened.
    unopened: Vec<String>,
    retention: Retention,
    collector: Collector,
    replication: Replication,
    reporter: Reporter,
    replicas_are_finished: bool,
    /// How many damage reports there were about each checkpoint that proved whole, by its manifest's name.
    false_reports: BTreeMap<String, u32>,
    /// The manifests of checkpoints that the run does not use in this term.
    skipped: BTreeSet<String>,
}

impl Recorder {
    /// A recorder of the run of `term`. `unopened` are the stores of replicas that are not in `sources` because they could not
    /// be opened.
    pub(crate) fn new(
        term: Term,
        sources: Sources,
        unopened: Vec<String>,
        retention: Retention,
        replication: Replication,
        reporter: Reporter,
    ) -> Self {
        Self {
            term,
            collector: Collector::default(),
            sources,
            unopened,
            retention,
            replication,
            reporter,
            replicas_are_finished: false,
            false_reports: BTreeMap::new(),
            skipped: BTreeSet::new(),
        }
    }

    /// Carries out requests until the driver drops their sender, or until the term is lost, which it reports.
    pub(crate) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            let done = match timeout(CHECK_INTERVAL, requests.recv()).await {
                Ok(Some(request)) => self.carry_out(request).await,
                Ok(None) => return self.release().await,
                Err(_) => self.check_term().await,
            };
            if let Err(TermLost(reason)) = done {
                self.replication.cancel();
                self.reporter.event(RunEvent::TermLost { reason });
                return;
            }
        }
    }

    async fn carry_out(&mut self, request: Request) -> Result<(), TermLost> {
        match request {
            Request::Commit { manifest, begun, stall } => self.commit(*manifest, begun, stall).await,
            Request::Quarantine { manifest, reason } => self.handle_damage_report(manifest, reason).await,
            Request::End(end) => {
                self.append(record_of(end)).await?;
                self.finish_replicas().await;
                self.reporter.event(RunEvent::EndRecorded);
                Ok(())
            }
        }
    }

    /// Checks whether another coordinator has started a term, which an idle recorder would not notice.
    async fn check_term(&mut self) -> Result<(), TermLost> {
        match self.term.check().await {
            Err(error @ AppendError::Fenced { .. }) => Err(TermLost(error.to_string())),
            Err(error) => {
                let (run, error) = (self.term.run().id(), with_causes(&error));
                tracing::warn!(%run, error, "cannot read the log to check the term; trying again later");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Appends to the log; tries again while the store does not answer.
    async fn append(&mut self, record: Record) -> Result<(), TermLost> {
        let mut attempts = 0;
        loop {
            match self.term.append(record.clone()).await {
                Ok(_) => return Ok(()),
                Err(error @ AppendError::Fenced { .. }) => return Err(TermLost(error.to_string())),
                Err(error) if attempts < ATTEMPTS => {
                    let (run, error) = (self.term.run().id(), with_causes(&error));
                    tracing::warn!(%run, error, "cannot write to the log; trying again");
                }
                Err(error) => return Err(TermLost(with_causes(&error))),
            }
            attempts += 1;
            sleep(PAUSE).await;
        }
    }

    async fn commit(&mut self, manifest: Manifest, begun: Instant, stall: Duration) -> Result<(), TermLost> {
        let (step, bytes) = (manifest.step, manifest.stored_bytes());
        match commit(&mut self.term, &manifest, None).await {
            Ok(committed) => {
                let (manifest, duration) = (committed.manifest, begun.elapsed());
                let committed = CommittedCheckpoint { step, manifest, bytes, duration, stall };
                self.reporter.send(Report::Committed(committed));
                let collected = self.collect_old_checkpoints().await;
                self.replication.publish(self.term.run_log());
                collected
            }
            Err(CommitError::Append(error @ AppendError::Fenced { .. })) => Err(TermLost(error.to_string())),
            Err(error) => {
                self.reporter.event(RunEvent::CommitFailed { step, reason: with_causes(&error) });
                Ok(())
            }
        }
    }

    /// Deletes checkpoints that need not be kept. A failure does not stop the run: the next commit tries again.
    async fn collect_old_checkpoints(&mut self) -> Result<(), TermLost> {
        let collected = self.collector.collect(&mut self.term, &self.retention).await;
        let run = self.term.run().id();
        match collected {
            Ok(collected) => tracing::debug!(%run, ?collected, "old checkpoints collected"),
            Err(CollectError::Append(error @ AppendError::Fenced { .. })) => {
                return Err(TermLost(error.to_string()));
            }
            Err(error) => {
                tracing::warn!(%run, error = with_causes(&error), "old checkpoints could not be deleted");
            }
        }
        Ok(())
    }

    /// Decides what to do about a checkpoint that a worker reports as damaged, and reports where the run goes on from.
    ///
    /// A quarantine is for good, and a worker may not reach every store that this coordinator reaches. So the checkpoint is
    /// read here first, which puts back what the run's directory lacks:
    ///
    /// | the check says | the checkpoint is |
    /// | --- | --- |
    /// | whole | used again; skipped after [`FALSE_REPORTS`] reports |
    /// | damaged, and a replica cannot be opened | skipped |
    /// | damaged in every store | quarantined |
    /// | unknown: a store does not answer | skipped |
    async fn handle_damage_report(&mut self, name: String, reason: String) -> Result<(), TermLost> {
        self.open_missing_replicas();
        match check_for_damage(&self.sources, self.term.run_log(), &name).await {
            DamageCheck::Whole => {
                let reports = self.false_reports.entry(name.clone()).or_default();
                *reports += 1;
                if *reports <= FALSE_REPORTS {
                    self.reporter.warning(format!("checkpoint {name} is whole now, and is used again"));
                } else {
                    self.skip(name, "it is whole, and no worker can read it")?;
                }
            }
            DamageCheck::Unknown(why) => self.skip(name, &why)?,
            DamageCheck::Damaged(_) if !self.unopened.is_empty() => {
                let stores = self.unopened.join(", ");
                self.skip(name, &format!("it may be whole in {stores}, which this coordinator cannot open"))?;
            }
            DamageCheck::Damaged(suspects) => self.quarantine(name, reason, &suspects).await?,
        }
        let start = start_without(self.term.run_log(), &self.skipped);
        self.reporter.event(RunEvent::Quarantined { start });
        Ok(())
    }

    /// Tries again to open the stores of replicas that could not be opened.
    fn open_missing_replicas(&mut self) {
        let run = self.term.run().id();
        self.unopened.retain(|uri| match Store::open(uri) {
            Ok(store) => {
                self.sources = self.sources.clone().with_replica(store.run(run));
                false
            }
            Err(error) => {
                tracing::warn!(%run, uri, error = with_causes(&error), "a replica still cannot be opened");
                true
            }
        });
    }

    /// Goes on without a checkpoint for the rest of this term, because it may be good. Ends the term if no other is left: the
    /// run must not start again from its beginning.
    fn skip(&mut self, name: String, why: &str) -> Result<(), TermLost> {
        self.skipped.insert(name.clone());
        let text = format!("checkpoint {name} cannot be used for now: {why}");
        if start_without(self.term.run_log(), &self.skipped) == Start::Initial {
            return Err(TermLost(format!(
                "{text}; there is none before it: resume the run when the checkpoint can be read"
            )));
        }
        self.reporter.warning(format!("{text}; continuing from the one before"));
        Ok(())
    }

    async fn quarantine(&mut self, name: String, reason: String, suspects: &[Pack]) -> Result<(), TermLost> {
        let mut attempts = 0;
        while let Err(error) = quarantine(&mut self.term, &name, &reason, suspects).await {
            let fenced = matches!(error, QuarantineError::Append(AppendError::Fenced { .. }));
            if fenced || attempts == ATTEMPTS {
                return Err(TermLost(with_causes(&error)));
            }
            let (run, error) = (self.term.run().id(), with_causes(&error));
            tracing::warn!(%run, error, "cannot quarantine a checkpoint; trying again");
            attempts += 1;
            sleep(PAUSE).await;
        }
        self.replication.publish(self.term.run_log());
        self.reporter
            .warning(format!("checkpoint {name} is damaged in every store, and is quarantined: {reason}"));
        Ok(())
    }

    /// Waits for the replicas to get the end of the run, and warns of those that do not.
    async fn finish_replicas(&mut self) {
        self.replicas_are_finished = true;
        self.reporter.send(Report::FinishingReplicas);
        for ReplicaStatus { uri, problem, .. } in self.replication.finish(self.term.run_log()).await {
            let why = problem.unwrap_or_else(|| "it is not done yet".to_owned());
            let (from, to) = (shell::word(self.term.run().uri()), shell::word(&uri));
            self.reporter.warning(format!(
                "the replica {uri} is not up to date with the run, which has ended: {why}; \
                 `whimbrel checkpoint copy {from} {to}` copies what it lacks"
            ));
        }
    }

    /// Ends without a record. A run that another coordinator is to adopt has its replicas brought up to date first, as far
    /// as the time for a shutdown allows.
    async fn release(self) {
        if self.replicas_are_finished {
            return;
        }
        let run = self.term.run().id();
        for ReplicaStatus { uri, problem, .. } in self.replication.finish(self.term.run_log()).await {
            tracing::warn!(%run, replica = uri, problem, "a replica is not up to date with a run that is released");
        }
    }
}

fn record_of(end: End) -> Record {
    let outcome = match end.outcome {
        Outcome::Finished => whimbrel_store::Outcome::Finished,
        Outcome::Failed => whimbrel_store::Outcome::Failed,
        Outcome::Cancelled => whimbrel_store::Outcome::Cancelled,
        Outcome::Stopped | Outcome::Released => {
            return Record::Stopped(Stopped { step: end.step, reason: end.reason });
        }
    };
    Record::Ended(Ended {
        outcome,
        step: end.step,
        loss: end.loss,
        val_loss: end.val_loss,
        state: end.state.map(|state| Hash::from(blake3::Hash::from_bytes(state))),
        reason: (!end.reason.is_empty()).then_some(end.reason),
    })
}
