//! Runs taken up from the store at a coordinator's start.
//!
//! The log of each is read, which says what runs there are; from then on questions are answered. Taking up those that go on
//! may take longer, since their other stores are looked at, and one of those may not answer at all, or have much that is to
//! be fetched: so they are taken up beside each other, and none waits for another.

use std::{convert::Infallible, mem::replace, time::Duration};

use futures::future::{join, join_all};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use whimbrel_plan::RunId;
use whimbrel_proto::{v1, with_causes};
use whimbrel_store::{LogError, Mode, Outcome, RunDir, RunLog, Store};

use crate::{driver::input::{Input, Inputs}, open::{facts, take_over::{stored_spec, take_over, SubmitError, Wish}}};

/// Runs that a store did not answer for are tried again after this long, and after twice as long each time.
const AGAIN: Duration = Duration::from_secs(5);
/// But not after more than this: each try adds an entry to the run's log.
const AGAIN_AT_MOST: Duration = Duration::from_secs(120);
/// A coordinator that started a term and did not have the run go on for this long is thought to have given it up. It may be
/// fetching what a replica has, which takes as long as it takes.
const GIVEN_UP: Duration = Duration::from_secs(3600);
/// The same of a run without replicas, of which there is nothing to fetch.
const GIVEN_UP_AT_ONCE: Duration = AGAIN_AT_MOST;
/// How a run comes out that another coordinator has go on is looked at this often: its whole log is read for it.
const ELSEWHERE_AGAIN: Duration = Duration::from_secs(3600);
/// Logs that are read at a time: nearly all of it is waiting for the store.
const AT_A_TIME: usize = 32;

/// What a run that is being taken up does.
const COMING: &str = "it is being taken up: its stores are looked at, and what its own lacks is fetched";

/// Looks through the store for runs submitted to a coordinator, and takes up those that neither ended nor were
/// stopped. The others are told of, so that they are listed. Ends when the coordinator shuts down.
pub(crate) async fn adopt(
    store: Store,
    coordinator: String,
    inputs: Inputs,
    shutting_down: CancellationToken,
) {
    let adoption = Adoption { store, coordinator, inputs, at_a_time: Semaphore::new(AT_A_TIME) };
    // What was not taken up is left to the next coordinator.
    shutting_down.run_until_cancelled(adoption.carry_out()).await;
}

struct Adoption {
    store: Store,
    coordinator: String,
    inputs: Inputs,
    at_a_time: Semaphore,
}

/// A run that goes on, and its log.
struct Found {
    dir: RunDir,
    run_log: RunLog,
}

/// The run is to be looked at again: the store did not answer for it, or not to the end, or another coordinator has it.
struct Again {
    run: RunId,
    /// Not before this.
    after: Duration,
}

/// What the run's log said when it was looked at before.
#[derive(Default)]
struct Before {
    /// The epoch, as long as nobody else started a term.
    epoch: Option<u64>,
    /// Since when it has been seen that others started a term, none of whom had the run go on.
    taken: Option<Instant>,
    /// It has been told that another started a term.
    is_told: bool,
}

/// Whether the run is somebody else's by now.
#[derive(Debug, PartialEq, Eq)]
enum Elsewhere {
    No,
    /// Somebody started a term, and may be having it go on, or have failed to.
    Perhaps,
    Yes,
}

impl Before {
    /// Who started a term while this coordinator, called `me`, tried to, is not disturbed, unless it did not have the run go
    /// on for so long as `given_up` says.
    fn is_elsewhere(&mut self, run_log: &RunLog, me: &str, given_up: impl FnOnce() -> Duration) -> Elsewhere {
        let epoch = run_log.epoch();
        let by_another = self.epoch.is_some_and(|before| before < epoch) && run_log.coordinator() != Some(me);
        if !by_another {
            *self = Self { epoch: Some(epoch), ..Self::default() };
            return Elsewhere::No;
        }
        if facts::goes_on(run_log) {
            self.taken = None;
            return Elsewhere::Yes;
        }
        let since = *self.taken.get_or_insert_with(Instant::now);
        if since.elapsed() < given_up() { Elsewhere::Perhaps } else { Elsewhere::No }
    }
}

impl Adoption {
    async fn carry_out(&self) {
        let runs = loop {
            match self.store.runs().await {
                Ok(runs) => break runs,
                Err(error) => {
                    let (store, error) = (self.store.uri(), with_causes(&error));
                    tracing::error!(store, error, "the runs in the store cannot be listed; trying again");
                }
            }
            self.inputs.send(Input::LookedThrough);
            sleep(AGAIN).await;
        };
        // Nothing goes over it: it is closed once nobody has a log to read.
        let (reading, mut all_read) = mpsc::channel::<Infallible>(1);
        let taking_up = runs.into_iter().map(|run| {
            let reading = reading.clone();
            async move {
                let mut before = Before::default();
                let looked_at = self.look_at(run, &mut before).await;
                drop(reading);
                self.bring(looked_at, before).await;
            }
        });
        let taking_up: Vec<_> = taking_up.collect();
        drop(reading);
        let telling = async {
            all_read.recv().await;
            self.inputs.send(Input::LookedThrough);
        };
        join(join_all(taking_up), telling).await;
    }

    /// Takes a run up, if it is to be, however often that takes.
    async fn bring(&self, mut looked_at: Result<Option<Found>, Again>, mut before: Before) {
        let mut pause = AGAIN;
        loop {
            let Again { run, after } = match looked_at {
                Ok(None) => return,
                Ok(Some(found)) => match self.take_up(found).await {
                    Ok(()) => return,
                    Err(again) => again,
                },
                Err(again) => again,
            };
            sleep(pause.max(after)).await;
            pause = (2 * pause).min(AGAIN_AT_MOST);
            looked_at = self.look_at(run, &mut before).await;
        }
    }

    /// Reads a run's log. The run, if it is to be taken up and nobody here has it; else it is told of.
    async fn look_at(&self, run: RunId, before: &mut Before) -> Result<Option<Found>, Again> {
        let dir = self.store.run(&run);
        let run_log = {
            // It is never closed; if it were, more at a time would be the smaller harm.
            let _turn = self.at_a_time.acquire().await.ok();
            dir.run_log().await
        };
        let run_log = match run_log {
            Ok(run_log) => run_log,
            Err(error @ LogError::Store(_)) => {
                tracing::error!(%run, error = with_causes(&error), "its log cannot be read; trying again");
                return Err(Again { run, after: AGAIN });
            }
            Err(error) => {
                tracing::error!(%run, error = with_causes(&error), "its log cannot be read; it is left alone");
                return Ok(None);
            }
        };
        let mut status = archived(&dir, &run_log);
        if run_log.submitter() == Mode::Embedded
            || run_log.replica_of().is_some()
            || run_log.ended().is_some()
            || run_log.stopped().is_some()
        {
            self.inputs.send(Input::Found(Box::new(status)));
            return Ok(None);
        }
        let given_up = || {
            let spec = stored_spec(&run, &run_log);
            let has_replicas = spec.is_ok_and(|spec| !spec.checkpoint.replicas.is_empty());
            if has_replicas { GIVEN_UP } else { GIVEN_UP_AT_ONCE }
        };
        let elsewhere = before.is_elsewhere(&run_log, &self.coordinator, given_up);
        if elsewhere != Elsewhere::No {
            let (holder, epoch) = (run_log.leader(), run_log.epoch());
            status.detail = format!("{holder} took the run over with epoch {epoch}, while this one tried to");
            self.inputs.send(Input::Found(Box::new(status)));
            if !replace(&mut before.is_told, true) {
                tracing::warn!(%run, holder, epoch, "another coordinator started a term and is not disturbed");
            }
            let after = if elsewhere == Elsewhere::Yes { ELSEWHERE_AGAIN } else { AGAIN };
            return Err(Again { run, after });
        }
        (status.phase, status.detail) = (v1::Phase::Waiting.into(), COMING.to_owned());
        let is_wanted = self.inputs.ask(|reply| Input::TakingUp(Box::new(status), reply)).await;
        Ok(is_wanted.unwrap_or(false).then_some(Found { dir, run_log }))
    }

    /// Takes a run up, or tells why it is not.
    async fn take_up(&self, Found { dir, run_log }: Found) -> Result<(), Again> {
        let run = dir.id();
        let taken = take_over(&self.store, dir.clone(), &run_log, &self.coordinator, Wish::Adopt).await;
        let error = match taken {
            Ok(opened) => {
                self.inputs.send(Input::Opened(Some(run.clone()), Box::new(Ok(opened)), None));
                return Ok(());
            }
            Err(error) => error,
        };
        let mut status = archived(&dir, &run_log);
        status.detail = with_causes(&error);
        self.inputs.send(Input::NotTakenUp(Box::new(status)));
        // One that is over, was stopped, or is somebody else's, by what is known only now is looked at again: by then its log
        // says so.
        if matches!(
            error,
            SubmitError::Term(_)
                | SubmitError::NotFetched(_)
                | SubmitError::Log(LogError::Store(_))
                | SubmitError::Append(_)
                | SubmitError::Over(..)
                | SubmitError::Stopped(_)
        ) {
            tracing::error!(%run, error = with_causes(&error), "it cannot be taken up; looking again");
            return Err(Again { run: run.clone(), after: AGAIN });
        }
        tracing::error!(%run, error = with_causes(&error), "it is not taken up");
        Ok(())
    }
}

/// How a run stands that nobody here works on.
fn archived(dir: &RunDir, run_log: &RunLog) -> v1::RunStatus {
    let spec = stored_spec(dir.id(), run_log).ok();
    let checkpoint = run_log.checkpoints().last().map(|checkpoint| checkpoint.step);
    let (mut loss, mut val_loss, mut step) = (None, None, checkpoint.unwrap_or(0));
    let mut detail = String::new();
    let phase = match run_log.ended() {
        Some(ended) => {
            (loss, val_loss, step) = (ended.loss, ended.val_loss, ended.step);
            detail = ended.reason.clone().unwrap_or_default();
            match ended.outcome {
                Outcome::Finished => v1::Phase::Finished,
                Outcome::Failed => v1::Phase::Failed,
                Outcome::Cancelled => v1::Phase::Cancelled,
            }
        }
        None => v1::Phase::Stopped,
    };
    if let Some(replica) = run_log.replica_of() {
        detail = format!("a replica of {}", replica.source);
    }
    v1::RunStatus {
        run: dir.id().to_string(),
        name: spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default(),
        uri: dir.uri().to_owned(),
        phase: phase.into(),
        detail,
        step,
        steps: spec.as_ref().map_or(0, |spec| spec.train.steps),
        generation: 0,
        epoch: run_log.epoch(),
        workers: Vec::new(),
        loss,
        val_loss,
        checkpoint,
        workers_min: spec.as_ref().map_or(0, |spec| spec.workers.min),
        workers_max: spec.as_ref().map_or(0, |spec| spec.workers.max),
        interval: spec.as_ref().map(|spec| spec.checkpoint.every.to_string()).unwrap_or_default(),
        replicas: Vec::new(),
        save_failure: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_store::{Ended, Record};

    use super::*;

    #[tokio::test]
    async fn who_took_office_meanwhile_is_left_alone_unless_it_never_has_the_run_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let run = Store::open(folder.path().to_str().unwrap()).unwrap().run(&"r-1".parse().unwrap());
        run.create("a spec", Mode::Service).await.unwrap();
        let (mut fresh, hour) = (Before::default(), || GIVEN_UP);
        assert_eq!(fresh.is_elsewhere(&run.run_log().await.unwrap(), "me", hour), Elsewhere::No);
        // Who submitted it holds it from the first.
        run.start_term("the first").await.unwrap();
        assert_eq!(fresh.is_elsewhere(&run.run_log().await.unwrap(), "me", hour), Elsewhere::Yes);

        // Who had it before is taken over from, and one's own tries are no news.
        let mut before = Before::default();
        assert_eq!(before.is_elsewhere(&run.run_log().await.unwrap(), "me", hour), Elsewhere::No);
        run.start_term("me").await.unwrap();
        assert_eq!(before.is_elsewhere(&run.run_log().await.unwrap(), "me", hour), Elsewhere::No);
        // Others may have failed to have it go on, for an hour, however often.
        run.start_term("another").await.unwrap();
        assert_eq!(before.is_elsewhere(&run.run_log().await.unwrap(), "me", hour), Elsewhere::Perhaps);
        run.start_term("a third").await.unwrap();
        let run_log = run.run_log().await.unwrap();
        tokio::time::pause();
        tokio::time::advance(GIVEN_UP - Duration::from_secs(1)).await;
        assert_eq!(before.is_elsewhere(&run_log, "me", hour), Elsewhere::Perhaps);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(before.is_elsewhere(&run_log, "me", hour), Elsewhere::No);
        tokio::time::resume();
        // One that had it go on is left alone, however long.
        let mut other = run.start_term("another").await.unwrap();
        other.append(Record::Resumed { step: 0 }).await.unwrap();
        let run_log = run.run_log().await.unwrap();
        assert_eq!(before.is_elsewhere(&run_log, "me", hour), Elsewhere::Yes);
        tokio::time::pause();
        tokio::time::advance(2 * GIVEN_UP).await;
        assert_eq!(before.is_elsewhere(&run_log, "me", hour), Elsewhere::Yes);
        tokio::time::resume();
        // Whoever takes over from that one has its own hour.
        run.start_term("a third").await.unwrap();
        let run_log = run.run_log().await.unwrap();
        assert_eq!(before.is_elsewhere(&run_log, "me", hour), Elsewhere::Perhaps);
    }

    #[tokio::test]
    async fn how_a_run_comes_out_elsewhere_is_told_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let run = store.run(&"r-1".parse().unwrap());
        run.create("a spec", Mode::Service).await.unwrap();
        let (inputs, mut told) = mpsc::unbounded_channel();
        let adoption = Adoption {
            store,
            coordinator: "me".into(),
            inputs: Inputs(inputs),
            at_a_time: Semaphore::new(1),
        };
        let mut told = async || match told.recv().await {
            Some(Input::Found(status)) => *status,
            other => panic!("{other:?}"),
        };
        let mut before = Before { epoch: Some(0), ..Before::default() };
        let mut term = run.start_term("another").await.unwrap();

        let looked_at = adoption.look_at(run.id().clone(), &mut before).await;
        assert!(matches!(looked_at, Err(Again { after: ELSEWHERE_AGAIN, .. })));
        let status = told().await;
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
        adoption.bring(looked_at, before).await;
        assert!(since.elapsed() >= ELSEWHERE_AGAIN);
        let status = told().await;
        assert_eq!((status.phase(), status.step), (v1::Phase::Finished, 7));
    }
}
