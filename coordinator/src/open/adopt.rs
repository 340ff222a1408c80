//! Adopts runs at the coordinator's start: finds the runs in the store that are neither stopped nor ended, and takes them over.
//!
//! The log of every run is read first; from then on clients' questions are answered. Taking the runs over may take longer,
//! since their replicas are compared, and a replica may not answer or may have much to copy. So the runs are adopted
//! concurrently, and none waits for another.

use std::{convert::Infallible, mem::replace, time::Duration};

use futures::future::{join, join_all};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use whimbrel_plan::RunId;
use whimbrel_proto::{v1, with_causes};
use whimbrel_store::{HostedBy, LogError, RunDir, RunLog, Store};

use crate::{
    open::{
        OpenedRun,
        archived::archived_status,
        rival::{Holder, Rival},
        submit_error::SubmitError,
        take_over::{Reason, stored_spec, take_over},
    },
    panics,
};

/// The pause before the store is asked again for a run; each further pause is twice as long, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(5);
/// Each attempt to adopt a run adds an entry to its log.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// A rival that started a term counts as gone if it does not have the run go on within this time. It may be copying what a
/// replica has, which may take long.
const RIVAL_TIMEOUT: Duration = Duration::from_secs(3600);
/// The same for a run without replicas, for which there is nothing to copy.
const RIVAL_TIMEOUT_WITHOUT_REPLICAS: Duration = LONGEST_PAUSE;
/// How often to look at a run that a rival has, to learn how it ends. Each look reads its whole log.
const RIVAL_LOOK_INTERVAL: Duration = Duration::from_secs(3600);
/// How many logs are read at once. Nearly all of the time goes into waiting for the store.
const CONCURRENT_LOGS: usize = 32;

/// The status detail of a run that is being adopted.
const ADOPTING: &str = "it is being adopted: its stores are compared, and what its own store lacks is copied";

/// What adoption tells the driver.
#[derive(Debug)]
pub(crate) enum Discovery {
    /// The log of every run in the store has been read, as far as the store answers.
    LogsRead,
    /// A run goes on, and this is its status until it is adopted. The driver answers whether it is to be.
    Adoptable(Box<v1::RunStatus>, oneshot::Sender<bool>),
    /// A run is not adopted: it has ended, was stopped, is a replica, is embedded in `whimbrel run`, or a rival has it.
    Archived(Box<v1::RunStatus>),
    /// A run was to be adopted, and could not be; why.
    AdoptionFailed(RunId, String),
    /// This coordinator holds the run's term.
    Adopted(RunId, Box<OpenedRun>),
}

/// Adopts the runs in the store that were submitted to a coordinator and neither ended nor were stopped, and tells the driver
/// of the others. The driver starts it once. It ends when every run is adopted or archived, or when the coordinator shuts down:
/// the next coordinator adopts what is left.
pub(crate) async fn adopt(
    store: Store,
    coordinator: String,
    driver: mpsc::UnboundedSender<Discovery>,
    shutdown: CancellationToken,
) {
    let adoption = Adoption { store, coordinator, driver, log_reads: Semaphore::new(CONCURRENT_LOGS) };
    shutdown.run_until_cancelled(adoption.adopt_all()).await;
}

struct Adoption {
    store: Store,
    coordinator: String,
    driver: mpsc::UnboundedSender<Discovery>,
    log_reads: Semaphore,
}

/// A run that is to be adopted, and its log.
struct Candidate {
    dir: RunDir,
    run_log: RunLog,
}

/// The run is to be looked at again: the store did not answer, or a rival has the run.
struct LookAgain {
    run: RunId,
    /// Not before this time has passed.
    after: Duration,
}

impl Adoption {
    async fn adopt_all(&self) {
        let runs = loop {
            let error = match panics::catch(self.store.runs()).await {
                Ok(Ok(runs)) => break runs,
                Ok(Err(error)) => with_causes(&error),
                Err(message) => format!("the coordinator has a defect: it panicked: {message}"),
            };
            let store = self.store.uri();
            tracing::error!(store, error, "cannot list the runs in the store; trying again");
            // Clients get an answer, though the list is empty.
            self.tell(Discovery::LogsRead);
            sleep(PAUSE).await;
        };
        // No message is sent over it: it closes once every run's log has been read.
        let (reading, mut all_read) = mpsc::channel::<Infallible>(1);
        let adoptions = runs.into_iter().map(|run| {
            let reading = reading.clone();
            self.adopt_despite_panics(run, reading)
        });
        let adoptions: Vec<_> = adoptions.collect();
        drop(reading);
        let tell_when_read = async {
            all_read.recv().await;
            self.tell(Discovery::LogsRead);
        };
        join(join_all(adoptions), tell_when_read).await;
    }

    fn tell(&self, discovery: Discovery) {
        if self.driver.send(discovery).is_err() {
            tracing::debug!("the driver has ended; a discovery is dropped");
        }
    }

    /// Adopts a run. After a panic, tells the driver and starts anew: the other runs are not affected.
    async fn adopt_despite_panics(&self, run: RunId, reading: mpsc::Sender<Infallible>) {
        let mut reading = Some(reading);
        let mut pause = PAUSE;
        loop {
            let reading = reading.take();
            let attempt = async {
                let mut rival = Rival::default();
                let first_look = self.look_at(run.clone(), &mut rival).await;
                drop(reading);
                self.adopt_run(first_look, rival).await;
            };
            let Err(message) = panics::catch(attempt).await else { return };
            let reason = SubmitError::Panicked(message).to_string();
            tracing::error!(%run, reason, "cannot adopt a run; trying again");
            self.tell(Discovery::AdoptionFailed(run.clone(), reason));
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Tries to adopt a run, after growing pauses, until it is adopted or archived.
    async fn adopt_run(&self, mut look: Result<Option<Candidate>, LookAgain>, mut rival: Rival) {
        let mut pause = PAUSE;
        loop {
            let LookAgain { run, after } = match look {
                Ok(None) => return,
                Ok(Some(candidate)) => match self.take_over(candidate).await {
                    Ok(()) => return,
                    Err(again) => again,
                },
                Err(again) => again,
            };
            sleep(pause.max(after)).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
            look = self.look_at(run, &mut rival).await;
        }
    }

    /// Reads a run's log. Returns the run if it is to be adopted; else tells the driver of it and returns `None`.
    async fn look_at(&self, run: RunId, rival: &mut Rival) -> Result<Option<Candidate>, LookAgain> {
        let dir = self.store.run(&run);
        let run_log = {
            // The semaphore is never closed; if it were, reading more logs at once would do less harm than failing.
            let _permit = self.log_reads.acquire().await.ok();
            dir.run_log().await
        };
        let run_log = match run_log {
            Ok(run_log) => run_log,
            Err(error @ LogError::Store(_)) => {
                tracing::error!(%run, error = with_causes(&error), "cannot read a run's log; trying again");
                return Err(LookAgain { run, after: PAUSE });
            }
            Err(error) => {
                tracing::error!(%run, error = with_causes(&error), "cannot read a run's log; the run is not adopted");
                return Ok(None);
            }
        };
        let mut status = archived_status(&dir, &run_log);
        if run_log.hosted_by() == HostedBy::Embedded
            || run_log.replica_of().is_some()
            || run_log.ended().is_some()
            || run_log.stopped().is_some()
        {
            self.tell(Discovery::Archived(Box::new(status)));
            return Ok(None);
        }
        let timeout = || {
            let spec = stored_spec(&run, &run_log);
            let has_replicas = spec.is_ok_and(|spec| !spec.checkpoint.replicas.is_empty());
            if has_replicas { RIVAL_TIMEOUT } else { RIVAL_TIMEOUT_WITHOUT_REPLICAS }
        };
        let holder = rival.holder(&run_log, &self.coordinator, timeout);
        if holder != Holder::Free {
            let (leader, epoch) = (run_log.leader(), run_log.epoch());
            status.detail =
                format!("{leader} took the run over with epoch {epoch} while this coordinator tried to");
            self.tell(Discovery::Archived(Box::new(status)));
            if !replace(&mut rival.is_logged, true) {
                tracing::warn!(%run, leader, epoch, "another coordinator took the run over; it is not adopted here");
            }
            let after = if holder == Holder::Rival { RIVAL_LOOK_INTERVAL } else { PAUSE };
            return Err(LookAgain { run, after });
        }
        (status.phase, status.detail) = (v1::Phase::Waiting.into(), ADOPTING.to_owned());
        let (reply, answer) = oneshot::channel();
        self.tell(Discovery::Adoptable(Box::new(status), reply));
        Ok(answer.await.unwrap_or(false).then_some(Candidate { dir, run_log }))
    }

    /// Takes a run over and tells the driver, also if it fails.
    async fn take_over(&self, Candidate { dir, run_log }: Candidate) -> Result<(), LookAgain> {
        let run = dir.id();
        let opened = take_over(&self.store, dir.clone(), &run_log, &self.coordinator, Reason::Adopt).await;
        let error = match opened {
            Ok(opened) => {
                self.tell(Discovery::Adopted(run.clone(), Box::new(opened)));
                return Ok(());
            }
            Err(error) => error,
        };
        self.tell(Discovery::AdoptionFailed(run.clone(), with_causes(&error)));
        // A run that proved to be over, stopped or a rival's is looked at again: its log says so by then.
        if matches!(
            error,
            SubmitError::Term(_)
                | SubmitError::NotRecovered(_)
                | SubmitError::Log(LogError::Store(_))
                | SubmitError::Append(_)
                | SubmitError::Over { .. }
                | SubmitError::Stopped(_)
        ) {
            tracing::error!(%run, error = with_causes(&error), "cannot adopt a run; trying again");
            return Err(LookAgain { run: run.clone(), after: PAUSE });
        }
        tracing::error!(%run, error = with_causes(&error), "cannot adopt a run; it is left to be resumed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use whimbrel_store::{Ended, Outcome, Record};

    use super::*;

    #[tokio::test]
    async fn the_driver_learns_how_a_run_ends_under_a_rival() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let run = store.run(&"r-1".parse().unwrap());
        run.create("a spec", HostedBy::Service).await.unwrap();
        let (driver, mut discoveries) = mpsc::unbounded_channel();
        let adoption = Adoption { store, coordinator: "me".into(), driver, log_reads: Semaphore::new(1) };
        let mut archived = async || match discoveries.recv().await {
            Some(Discovery::Archived(status)) => *status,
            other => panic!("{other:?}"),
        };
        let mut rival = Rival::after_epoch_0();
        let mut term = run.start_term("another").await.unwrap();

        let look = adoption.look_at(run.id().clone(), &mut rival).await;
        assert!(matches!(look, Err(LookAgain { after: RIVAL_LOOK_INTERVAL, .. })));
        let status = archived().await;
        assert!(status.detail.starts_with("another took the run over with epoch 1"), "{status:?}");
        let ended = Ended {
            outcome: Outcome::Finished,
            step: 7,
            loss: None,
            val_loss: None,
            state: None,
            reason: None,
        };
        term.append(Record::Ended(ended)).await.unwrap();
        tokio::time::pause();
        let since = Instant::now();
        adoption.adopt_run(look, rival).await;
        assert!(since.elapsed() >= RIVAL_LOOK_INTERVAL);
        let status = archived().await;
        assert_eq!((status.phase(), status.step), (v1::Phase::Finished, 7));
    }
}
