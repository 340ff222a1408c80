//! Replicas kept in step behind a run.
//!
//! ```text
//!  recorder ── the log as it is now ──► keeper (one a replica) ── packs, manifests, log ──► replica
//!     ▲                                    │
//!     └── at the run's end: all there? ◄───┴── how it stands ──► hosted: `status`
//! ```
//!
//! A keeper is told of the run's log after each commit, brings its replica into step with it, and says how that went. It
//! holds up nobody: what comes meanwhile waits for the next round, and after a failure it tries again, at longer and
//! longer intervals. Only at the run's end the recorder waits for its keepers, so that a run that is said to have ended
//! is in its replicas too, or is said not to be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use whimbrel_core::RunEvent;
use whimbrel_proto::{
    v1::{self, run_event::Event},
    with_causes,
};
use whimbrel_store::{
    CopyProgress, Lag, Limits, OpenError, ReplicateError, Replicator, Retention, RunDir, RunLog, Store,
};

use crate::{driver::input::{Input, Inputs}, events, open::replicas::Replica, record::replica_status::{patience, until_in_step, Standing}};

/// The wait after a first failure; each further one is twice as long, up to [`LONGEST`].
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(120);
/// When the coordinator shuts down, replicas have this long to come into step: less than the shutdown itself takes.
const LAST_CALL: Duration = Duration::from_secs(45);

/// A run's keepers, as its recorder has them.
#[derive(Debug)]
pub(crate) struct Replication {
    wanted: watch::Sender<Wanted>,
    standings: Vec<watch::Receiver<Standing>>,
    /// The coordinator shuts down.
    shutdown: CancellationToken,
}

/// What a replica is to be brought into step with.
#[derive(Clone, Debug)]
struct Wanted {
    run_log: Arc<RunLog>,
    then: Then,
}

/// What comes after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The run goes on.
    GoOn,
    /// It has ended: there is no later time to make up for a failure.
    End,
    /// Nobody waits any more.
    Leave,
}

/// What all keepers of a run need.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    /// The run's directory.
    pub(crate) run: RunDir,
    /// The epoch in which the run is held here.
    pub(crate) epoch: u64,
    /// What this coordinator calls itself.
    pub(crate) who: String,
    pub(crate) retention: Retention,
    pub(crate) limits: Limits,
    pub(crate) inputs: Inputs,
    /// The coordinator shuts down.
    pub(crate) shutdown: CancellationToken,
}

impl Replication {
    /// Starts a keeper for each replica, as one of `tasks`. They end with the run, or when this is dropped.
    pub(crate) fn start(
        keeping: &Keeping,
        run_log: &RunLog,
        replicas: Vec<Replica>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let wanted = Wanted { run_log: Arc::new(run_log.clone()), then: Then::GoOn };
        let (wanted, to_keepers) = watch::channel(wanted);
        let mut standings = Vec::new();
        for Replica { store, dir } in replicas {
            let uri = dir.as_ref().map_or(store.as_str(), RunDir::uri).to_owned();
            let of = run_log.next_number();
            let (standing, from_keeper) = watch::channel(Standing::new(uri, of));
            let keeper = Keeper {
                keeping: keeping.clone(),
                store,
                dir,
                replicator: None,
                wanted: to_keepers.clone(),
                standing,
                told: None,
            };
            tasks.spawn(keeper.keep());
            standings.push(from_keeper);
        }
        Self { wanted, standings, shutdown: keeping.shutdown.clone() }
    }

    /// How the replicas stand, now and later.
    pub(crate) fn standings(&self) -> Vec<watch::Receiver<Standing>> {
        self.standings.clone()
    }

    /// Tells the keepers of the log as it is now.
    pub(crate) fn publish(&self, run_log: &RunLog) {
        self.say(run_log, Then::GoOn);
    }

    fn say(&self, run_log: &RunLog, then: Then) {
        if !self.standings.is_empty() {
            self.wanted.send_replace(Wanted { run_log: Arc::new(run_log.clone()), then });
        }
    }

    /// Has the keepers bring their replicas into step with a log that has come to its end, and waits as long as they get
    /// on with it, if the coordinator doesn't shut down. Returns how those stand that did not come into step.
    pub(crate) async fn finish(&self, run_log: &RunLog) -> Vec<Standing> {
        self.say(run_log, Then::End);
        let entries = run_log.next_number();
        let waits = self.standings.iter().map(|standing| {
            let last_call = async { (self.shutdown.cancelled().await, sleep(LAST_CALL).await) };
            until_in_step(standing, entries, last_call)
        });
        let left = join_all(waits).await.into_iter().flatten().collect();
        self.leave();
        left
    }

    /// Has the keepers end at once.
    pub(crate) fn leave(&self) {
        self.wanted.send_modify(|wanted| wanted.then = Then::Leave);
    }
}

/// Keeps one replica in step.
struct Keeper {
    keeping: Keeping,
    store: String,
    dir: Option<RunDir>,
    replicator: Option<Replicator>,
    wanted: watch::Receiver<Wanted>,
    standing: watch::Sender<Standing>,
    /// The trouble that watchers were told of.
    told: Option<String>,
}

/// A round that did not bring the replica into step.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the store {uri} cannot be opened")]
    Open { uri: String, source: OpenError },
    #[error(transparent)]
    Replicate(#[from] ReplicateError),
}

impl Keeper {
    async fn keep(mut self) {
        let mut failures = 0_u32;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let entries = wanted.run_log.next_number();
            if wanted.then == Then::Leave {
                return;
            }
            if self.standing.borrow().entries >= entries {
                if wanted.then == Then::End || self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let mut to_leave = self.wanted.clone();
            let round = tokio::select! {
                round = self.round(&wanted.run_log) => round,
                // Also when the recorder is gone, and the wish with it.
                _ = to_leave.wait_for(|wanted| wanted.then == Then::Leave) => return,
            };
            match round {
                Ok(()) => failures = 0,
                Err(RoundError::Replicate(ReplicateError::WentOn { at, epoch, coordinator })) => {
                    let reason = format!("fenced: the run went on at {at} ({coordinator}, epoch {epoch})");
                    self.fail(reason.clone());
                    let (run, event) = (self.keeping.run.id().clone(), RunEvent::TermLost { reason });
                    self.keeping.inputs.send(Input::OfTerm(run, self.keeping.epoch, event));
                    return;
                }
                Err(error) => {
                    self.fail(with_causes(&error));
                    failures += 1;
                    if !self.rest(failures, wanted.then).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits after so many failures in a row, at a run's end not for long. Says whether there is anything left to do.
    async fn rest(&self, failures: u32, then: Then) -> bool {
        let wait = match then {
            Then::GoOn => FIRST_WAIT.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST),
            Then::End | Then::Leave => FIRST_WAIT,
        };
        let mut wanted = self.wanted.clone();
        tokio::select! {
            () = sleep(wait) => true,
            other = wanted.wait_for(|wanted| wanted.then != then) => other.is_ok(),
        }
    }

    /// Brings the replica into step with this log.
    async fn round(&mut self, run_log: &RunLog) -> Result<(), RoundError> {
        let of = run_log.next_number();
        let kept = self.keeping.retention.kept(run_log);
        self.standing.send_modify(|standing| {
            standing.of = of;
            let newer = kept.iter().filter(|checkpoint| Some(checkpoint.step) > standing.newest);
            standing.lacks = newer.map(|checkpoint| checkpoint.bytes).sum();
        });
        let began = Instant::now();
        let mut arrived = 0;
        let lag = {
            let (replicator, standing) = self.open()?;
            let mut progress = |progress| {
                if let CopyProgress::Moved { bytes } | CopyProgress::Found { bytes } = progress {
                    standing.send_modify(|standing| {
                        standing.lacks = standing.lacks.saturating_sub(bytes);
                        standing.moved += bytes;
                    });
                }
                if let CopyProgress::Moved { bytes } = progress {
                    arrived += bytes;
                }
            };
            replicator.replicate(run_log, &mut progress).await?
        };
        self.came(lag, of, arrived, began.elapsed());
        Ok(())
    }

    /// The replicator, and where it says how it gets on.
    fn open(&mut self) -> Result<(&mut Replicator, &watch::Sender<Standing>), RoundError> {
        let Keeping { run, who, retention, limits, .. } = &self.keeping;
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => {
                let failed = |source| RoundError::Open { uri: self.store.clone(), source };
                Store::open(&self.store).map_err(failed)?.run(run.id())
            }
        };
        let (uri, patience) = (dir.uri().to_owned(), patience(&dir, limits));
        self.standing.send_if_modified(|standing| {
            let news = (&standing.uri, standing.patience) != (&uri, patience);
            (standing.uri, standing.patience) = (uri, patience);
            news
        });
        self.dir = Some(dir.clone());
        let replicator = self
            .replicator
            .get_or_insert_with(|| Replicator::new(run, &dir, who, retention.clone(), *limits));
        Ok((replicator, &self.standing))
    }

    /// A round came to its end.
    fn came(&mut self, lag: Lag, entries: u64, bytes: u64, time: Duration) {
        let trouble = lag.left_out.first().map(|left_out| {
            let what = if left_out.why.is_damage() { "is damaged and" } else { "is" };
            format!(
                "the checkpoint of step {} {what} left out: {}",
                left_out.step,
                with_causes(&left_out.why)
            )
        });
        for unreplicated in &lag.unreplicated {
            let uri = self.standing.borrow().uri.clone();
            let text = format!("the replica {uri} {unreplicated}; the run went on without it");
            self.tell(events::warning(text));
        }
        let before = self.standing.borrow().newest;
        self.standing.send_modify(|standing| {
            (standing.newest, standing.lacks, standing.entries) = (lag.newest, lag.missing.bytes, entries);
            standing.trouble.clone_from(&trouble);
        });
        if lag.newest != before || self.told.is_some() && trouble.is_none() {
            let replica = Some(self.standing.borrow().status(lag.newest_of_run));
            let seconds = time.as_secs_f64();
            self.tell(Event::Replicated(v1::ReplicatedEvent { replica, bytes, seconds }));
        }
        self.told = trouble.and_then(|trouble| self.warn(trouble));
    }

    fn fail(&mut self, trouble: String) {
        self.standing.send_modify(|standing| {
            standing.trouble = Some(trouble.clone());
            standing.failures += 1;
        });
        self.told = self.warn(trouble);
    }

    /// Warns of a trouble, unless it is the one warned of last; returns it.
    fn warn(&self, trouble: String) -> Option<String> {
        if self.told.as_ref() != Some(&trouble) {
            let text =
                format!("the replica {} does not come into step: {trouble}", self.standing.borrow().uri);
            self.tell(events::warning(text));
        }
        Some(trouble)
    }

    fn tell(&self, event: Event) {
        let Keeping { run, epoch, inputs, .. } = &self.keeping;
        inputs.send(Input::Tell(run.id().clone(), *epoch, event));
    }
}
