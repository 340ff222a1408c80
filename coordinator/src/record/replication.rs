//! Keeps the replicas of a run up to date.
//!
//! ```text
//!  recorder ── the log after each commit ──► replica task (one a replica) ── packs, manifests, log ──► replica
//!     ▲                                         │
//!     └── at the run's end: all up to date? ◄───┴── replica status ──► driver: `status`
//! ```
//!
//! After each commit the recorder publishes the run's log. Each replica task copies what its replica lacks and updates the
//! replica status. It delays nothing: a commit during a round is copied in the next round, and after a failure the task tries
//! again, at growing intervals. Only at the run's end does the recorder wait for the tasks, so that a run that is reported as
//! ended is in its replicas too, or is reported as missing there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use whimbrel_core::RunEvent;
use whimbrel_proto::with_causes;
use whimbrel_store::{
    CopyProgress, Lag, Limits, OpenError, ReplicateError, Replicator, Retention, RunDir, RunLog, Store,
};

use crate::{
    open::replicas::Replica,
    record::{
        replica_status::{ReplicaStatus, pack_timeout, wait_until_up_to_date},
        report::{Replicated, Report, Reporter},
    },
};

/// The pause after a first failure; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// When the coordinator shuts down, replicas have this long to get up to date: less than the shutdown itself may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(45);

/// The recorder's handle on the replica tasks of a run.
#[derive(Debug)]
pub(crate) struct Replication {
    log: SharedLog,
    target: watch::Sender<Target>,
    statuses: Vec<watch::Receiver<ReplicaStatus>>,
    /// Cancelled when the coordinator shuts down.
    shutdown: CancellationToken,
}

/// What the replica tasks work towards.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// The entries that the shared log has at least.
    entries: u64,
    stage: Stage,
}

/// The run's log as the recorder published it last. The recorder adds the new entries; each task copies to its own log those
/// that it lacks. So a commit does not copy the whole log, which grows with the run.
#[derive(Clone, Debug)]
struct SharedLog(Arc<Mutex<RunLog>>);

impl SharedLog {
    fn with<T>(&self, act: impl FnOnce(&mut RunLog) -> T) -> T {
        // Extending a log adds whole entries: it is valid even if a thread panicked meanwhile.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How urgent that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The run goes on: a failed round is repeated after a growing pause.
    Following,
    /// The run has ended and the recorder waits: pauses are short, and a task ends once its replica is up to date.
    Finishing,
    /// Every task ends at once.
    Cancelled,
}

/// What the replica tasks of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaConfig {
    /// The run's directory.
    pub(crate) run: RunDir,
    /// This coordinator's name, for the replica's log.
    pub(crate) coordinator: String,
    /// Which checkpoints a replica keeps.
    pub(crate) retention: Retention,
    /// How fast packs are sent.
    pub(crate) limits: Limits,
    pub(crate) reporter: Reporter,
    /// Cancelled when the coordinator shuts down.
    pub(crate) shutdown: CancellationToken,
}

impl Replication {
    /// The handle, and a task for each replica, for the driver to start. The tasks end with the run, or when the handle is
    /// dropped.
    pub(crate) fn new(
        config: &ReplicaConfig,
        run_log: &RunLog,
        replicas: Vec<Replica>,
    ) -> (Self, Vec<ReplicaTask>) {
        let log = SharedLog(Arc::new(Mutex::new(run_log.clone())));
        let target = Target { entries: run_log.next_number(), stage: Stage::Following };
        let (sender, target) = watch::channel(target);
        let (mut statuses, mut tasks) = (Vec::new(), Vec::new());
        for Replica { store, dir } in replicas {
            let uri = dir.as_ref().map_or(store.as_str(), RunDir::uri).to_owned();
            let (status, receiver) = watch::channel(ReplicaStatus::unknown(uri, run_log.next_number()));
            tasks.push(ReplicaTask {
                config: config.clone(),
                store,
                dir,
                replicator: None,
                run_log: run_log.clone(),
                published: log.clone(),
                target: target.clone(),
                status,
                reported: None,
            });
            statuses.push(receiver);
        }
        (Self { log, target: sender, statuses, shutdown: config.shutdown.clone() }, tasks)
    }

    /// The statuses of the replicas, now and later, for the driver.
    pub(crate) fn statuses(&self) -> Vec<watch::Receiver<ReplicaStatus>> {
        self.statuses.clone()
    }

    /// Gives the replica tasks the log after a commit.
    pub(crate) fn publish(&self, run_log: &RunLog) {
        self.set_target(run_log, Stage::Following);
    }

    fn set_target(&self, run_log: &RunLog, stage: Stage) {
        if !self.statuses.is_empty() {
            self.log.with(|log| log.extend_from(run_log));
            self.target.send_replace(Target { entries: run_log.next_number(), stage });
        }
    }

    /// Has the replica tasks copy the final log, waits as long as they make progress (on shutdown, at most
    /// [`SHUTDOWN_TIMEOUT`]), and ends them. Returns the statuses of the replicas that are behind.
    pub(crate) async fn finish(&self, run_log: &RunLog) -> Vec<ReplicaStatus> {
        self.set_target(run_log, Stage::Finishing);
        let entries = run_log.next_number();
        let waits = self.statuses.iter().map(|status| {
            let deadline = async { (self.shutdown.cancelled().await, sleep(SHUTDOWN_TIMEOUT).await) };
            wait_until_up_to_date(status, entries, deadline)
        });
        let left = join_all(waits).await.into_iter().flatten().collect();
        self.cancel();
        left
    }

    /// Ends the replica tasks at once.
    pub(crate) fn cancel(&self) {
        self.target.send_modify(|target| target.stage = Stage::Cancelled);
    }
}

/// Keeps one replica up to date.
pub(crate) struct ReplicaTask {
    config: ReplicaConfig,
    store: String,
    /// `None` until the store can be opened.
    dir: Option<RunDir>,
    replicator: Option<Replicator>,
    /// The run's log at the last round.
    run_log: RunLog,
    published: SharedLog,
    target: watch::Receiver<Target>,
    status: watch::Sender<ReplicaStatus>,
    /// The problem that was last reported to watchers.
    reported: Option<String>,
}

/// Why a round did not bring the replica up to date.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the store {uri} cannot be opened")]
    Open { uri: String, source: OpenError },
    #[error(transparent)]
    Replicate(#[from] ReplicateError),
}

impl ReplicaTask {
    /// Runs until the run has ended and the replica is up to date, or the recorder ends the task.
    pub(crate) async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let target = *self.target.borrow_and_update();
            if target.stage == Stage::Cancelled {
                return;
            }
            if self.status.borrow().entries >= target.entries {
                if target.stage == Stage::Finishing || self.target.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let mut cancelled = self.target.clone();
            let round = tokio::select! {
                round = self.round() => round,
                // Also when the recorder has ended and dropped its handle.
                _ = cancelled.wait_for(|target| target.stage == Stage::Cancelled) => return,
            };
            match round {
                Ok(()) => failures = 0,
                Err(RoundError::Replicate(ReplicateError::WentOn { at, epoch, coordinator })) => {
                    let reason = format!("fenced: the run went on at {at} ({coordinator}, epoch {epoch})");
                    self.round_failed(reason.clone());
                    self.config.reporter.event(RunEvent::TermLost { reason });
                    return;
                }
                Err(error) => {
                    self.round_failed(with_causes(&error));
                    failures += 1;
                    if !self.pause(failures, target.stage).await {
                        return;
                    }
                }
            }
        }
    }

    /// Pauses after `failures` failures in a row; a change of stage ends the pause. Returns whether the recorder still holds
    /// its handle.
    async fn pause(&self, failures: u32, stage: Stage) -> bool {
        let pause = match stage {
            Stage::Following => FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST_PAUSE),
            Stage::Finishing | Stage::Cancelled => FIRST_PAUSE,
        };
        let mut target = self.target.clone();
        tokio::select! {
            () = sleep(pause) => true,
            other = target.wait_for(|target| target.stage != stage) => other.is_ok(),
        }
    }

    /// Copies what the replica lacks of the run as it was published last.
    async fn round(&mut self) -> Result<(), RoundError> {
        self.published.with(|log| self.run_log.extend_from(log));
        let entries = self.run_log.next_number();
        let kept = self.config.retention.kept(&self.run_log);
        self.status.send_modify(|status| {
            status.wanted_entries = entries;
            let newer = kept.iter().filter(|checkpoint| Some(checkpoint.step) > status.newest);
            status.missing_bytes = newer.map(|checkpoint| checkpoint.bytes).sum();
        });
        let began = Instant::now();
        let mut sent = 0;
        let lag = {
            let (replicator, run_log, status) = self.open()?;
            let mut progress = |progress| {
                if let CopyProgress::Moved { bytes } | CopyProgress::Found { bytes } = progress {
                    status.send_modify(|status| {
                        status.missing_bytes = status.missing_bytes.saturating_sub(bytes);
                        status.arrived_bytes += bytes;
                    });
                }
                if let CopyProgress::Moved { bytes } = progress {
                    sent += bytes;
                }
            };
            replicator.replicate(run_log, &mut progress).await?
        };
        self.round_succeeded(lag, entries, sent, began.elapsed());
        Ok(())
    }

    /// Opens the replica if that has not succeeded yet; returns its replicator, the log to copy, and the status for it to
    /// update.
    fn open(&mut self) -> Result<(&mut Replicator, &RunLog, &watch::Sender<ReplicaStatus>), RoundError> {
        let ReplicaConfig { run, coordinator, retention, limits, .. } = &self.config;
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => {
                let failed = |source| RoundError::Open { uri: self.store.clone(), source };
                Store::open(&self.store).map_err(failed)?.run(run.id())
            }
        };
        let (uri, timeout) = (dir.uri().to_owned(), pack_timeout(&dir, limits));
        self.status.send_if_modified(|status| {
            let is_new = (&status.uri, status.timeout) != (&uri, timeout);
            (status.uri, status.timeout) = (uri, timeout);
            is_new
        });
        self.dir = Some(dir.clone());
        let replicator = self
            .replicator
            .get_or_insert_with(|| Replicator::new(run, &dir, coordinator, retention.clone(), *limits));
        Ok((replicator, &self.run_log, &self.status))
    }

    /// Updates the status after a round and reports what changed.
    fn round_succeeded(&mut self, lag: Lag, entries: u64, bytes: u64, duration: Duration) {
        let problem = lag.skipped.first().map(|left_out| {
            let what = if left_out.why.is_damage() { "is damaged and" } else { "is" };
            format!(
                "the checkpoint of step {} {what} left out: {}",
                left_out.step,
                with_causes(&left_out.why)
            )
        });
        for unreplicated in &lag.unreplicated {
            let uri = self.status.borrow().uri.clone();
            let text = format!("the replica {uri} {unreplicated}; the run went on without it");
            self.config.reporter.warning(text);
        }
        let before = self.status.borrow().newest;
        self.status.send_modify(|status| {
            (status.newest, status.missing_bytes, status.entries) = (lag.newest, lag.missing.bytes, entries);
            status.problem.clone_from(&problem);
        });
        if lag.newest != before || self.reported.is_some() && problem.is_none() {
            let replica = self.status.borrow().clone();
            let replicated = Replicated { replica, newest_of_run: lag.newest_of_run, bytes, duration };
            self.config.reporter.send(Report::Replicated(replicated));
        }
        self.report_problem(problem);
    }

    fn round_failed(&mut self, problem: String) {
        self.status.send_modify(|status| {
            status.problem = Some(problem.clone());
            status.failures += 1;
        });
        self.report_problem(Some(problem));
    }

    /// Warns watchers of a problem, unless it is the one that they were last warned of.
    fn report_problem(&mut self, problem: Option<String>) {
        if let Some(problem) = &problem
            && self.reported.as_ref() != Some(problem)
        {
            let uri = self.status.borrow().uri.clone();
            let text = format!("the replica {uri} is not up to date: {problem}");
            self.config.reporter.warning(text);
        }
        self.reported = problem;
    }
}
