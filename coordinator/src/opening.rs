//! Runs submitted, resumed, and adopted from the store at a coordinator's start.

use std::time::Duration;

use tonic::Status;
use whimbrel_core::{Past, Start};
use whimbrel_plan::RunId;
use whimbrel_proto::{v1, with_causes};
use whimbrel_spec::{Mistakes, RunSpec};
use whimbrel_store::{
    AppendError, CreateError, Ended, History, LogError, Mode, Office, OfficeError, Outcome, ProbeError,
    Record, RunDir, Store, StoreError,
};

use crate::{
    facts,
    input::{Input, Inputs},
    replicas::{self, Replica, ReplicaError, WentOn},
};

/// Runs that the store did not answer for at the start are tried again after this long.
const ADOPT_AGAIN: Duration = Duration::from_secs(5);

/// A run whose office this coordinator holds.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) dir: RunDir,
    pub(crate) spec: RunSpec,
    pub(crate) office: Office,
    pub(crate) start: Start,
    pub(crate) past: Past,
    pub(crate) replicas: Vec<Replica>,
    /// What is to be said aloud of the opening.
    pub(crate) found: Vec<String>,
}

/// A run cannot be submitted or resumed.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The spec has mistakes.
    #[error(transparent)]
    Spec(#[from] Mistakes),
    /// The spec in the run's own log has mistakes: it was written by another version, or damaged.
    #[error("the spec stored with run {run} is not one this version understands: {source}")]
    StoredSpec {
        /// The run.
        run: RunId,
        /// What is wrong with it.
        source: Mistakes,
    },
    /// A name for the run cannot be made.
    #[error("no name could be made for the run: {0}")]
    Name(String),
    /// The store will not do.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A replica will not do.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// It went on in another of its stores.
    #[error(transparent)]
    WentOn(#[from] WentOn),
    /// The store's runs could not be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run's directory could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The run's log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run's office could not be taken.
    #[error(transparent)]
    Office(#[from] OfficeError),
    /// That the run goes on could not be recorded.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The coordinator is about to end.
    #[error("the coordinator is shutting down; submit to the next one")]
    ShuttingDown,
    /// There is no such run.
    #[error("there is no run {0} in {1}")]
    Unknown(String, String),
    /// It has ended for good.
    #[error("run {0} has {1}; it cannot be resumed, only submitted anew")]
    Over(RunId, String),
    /// It is going on here.
    #[error("run {0} is already under way here")]
    UnderWay(RunId),
}

impl From<SubmitError> for Status {
    fn from(error: SubmitError) -> Self {
        let text = with_causes(&error);
        match error {
            SubmitError::Spec(_) => Self::invalid_argument(text),
            SubmitError::Unknown(..) => Self::not_found(text),
            SubmitError::UnderWay(_) => Self::already_exists(text),
            SubmitError::ShuttingDown => Self::unavailable(text),
            SubmitError::Name(_) => Self::internal(text),
            SubmitError::StoredSpec { .. }
            | SubmitError::Probe(_)
            | SubmitError::Replica(_)
            | SubmitError::WentOn(_)
            | SubmitError::Store(_)
            | SubmitError::Create(_)
            | SubmitError::Log(_)
            | SubmitError::Office(_)
            | SubmitError::Append(_)
            | SubmitError::Over(..) => Self::failed_precondition(text),
        }
    }
}

/// Makes the directory of a new run and takes its office.
pub(crate) async fn submit(
    store: &Store,
    text: &str,
    submitter: Mode,
    coordinator: &str,
) -> Result<Opened, SubmitError> {
    let mut spec = RunSpec::parse("the run spec", text, &[])?;
    store.probe().await?;
    let replicas = replicas::submitted(store, &mut spec).await?;
    let id = new_run_id(&spec.name)?;
    let dir = store.run(&id);
    let in_it = |replica: Store| Replica { store: replica.uri().to_owned(), dir: Some(replica.run(&id)) };
    let replicas = replicas.into_iter().map(in_it).collect();
    dir.create(&spec.to_toml(), submitter).await?;
    let office = dir.take_office(coordinator).await?;
    let (start, past, found) = (Start::Initial, Past::default(), Vec::new());
    Ok(Opened { dir, spec, office, start, past, replicas, found })
}

/// Takes the office of a run that is in the store.
pub(crate) async fn resume(store: &Store, run: &str, coordinator: &str) -> Result<Opened, SubmitError> {
    let unknown = || SubmitError::Unknown(run.to_owned(), store.uri().to_owned());
    let id: RunId = run.parse().map_err(|_| unknown())?;
    if !store.runs().await?.contains(&id) {
        return Err(unknown());
    }
    let dir = store.run(&id);
    let history = dir.history().await?;
    if let Some(outcome) = history.ended() {
        return Err(SubmitError::Over(id, outcome_word(outcome).to_owned()));
    }
    store.probe().await?;
    take_over(store, dir, &history, coordinator).await
}

/// Takes the office of a run whose log is `history`, unless it went on in another of its stores.
async fn take_over(
    store: &Store,
    dir: RunDir,
    history: &History,
    coordinator: &str,
) -> Result<Opened, SubmitError> {
    let spec = stored_spec(dir.id(), history)?;
    let replicas = replicas::of_run(store, dir.id(), &spec);
    let found = replicas::compare(&dir, history, &replicas, coordinator).await?;
    for text in &found {
        tracing::warn!(run = %dir.id(), "{text}");
    }
    // What is read with the office in hand is the last word: nobody of a lower epoch adds to it any more.
    let mut office = dir.take_office(coordinator).await?;
    let start = newest(office.history());
    if office.history().stopped().is_some() {
        office.append(Record::Resumed { step: start.step() }).await?;
    }
    let past = facts::past(office.history());
    Ok(Opened { start, past, dir, spec, office, replicas, found })
}

/// Where a run goes on from: its newest good checkpoint, or its beginning.
pub(crate) fn newest(history: &History) -> Start {
    match history.checkpoints().last() {
        Some(checkpoint) => {
            Start::Checkpoint { step: checkpoint.step, manifest: checkpoint.manifest.clone() }
        }
        None => Start::Initial,
    }
}

fn stored_spec(run: &RunId, history: &History) -> Result<RunSpec, SubmitError> {
    RunSpec::parse("the stored spec", history.spec(), &[])
        .map_err(|source| SubmitError::StoredSpec { run: run.clone(), source })
}

/// Looks through the store for runs submitted to a coordinator, and takes up those that neither ended nor were
/// stopped. The others are told of, so that they are listed.
pub(crate) async fn adopt(store: Store, coordinator: String, inputs: Inputs) {
    let mut todo = loop {
        match store.runs().await {
            Ok(runs) => break runs,
            Err(error) => {
                let error = with_causes(&error);
                tracing::error!(
                    store = store.uri(),
                    error,
                    "the runs in the store cannot be listed; trying again"
                );
            }
        }
        inputs.send(Input::Adopted);
        if !inputs.wait(ADOPT_AGAIN).await {
            return;
        }
    };
    loop {
        todo = adopt_each(&store, &coordinator, &inputs, todo).await;
        inputs.send(Input::Adopted);
        if todo.is_empty() || !inputs.wait(ADOPT_AGAIN).await {
            return;
        }
    }
}

/// Takes up, or tells of, each of these runs; returns those that the store did not answer for.
async fn adopt_each(store: &Store, coordinator: &str, inputs: &Inputs, runs: Vec<RunId>) -> Vec<RunId> {
    let mut again = Vec::new();
    for id in runs {
        let dir = store.run(&id);
        let history = match dir.history().await {
            Ok(history) => history,
            Err(error @ LogError::Store(_)) => {
                tracing::error!(run = %id, error = with_causes(&error), "its log cannot be read; trying again");
                again.push(id);
                continue;
            }
            Err(error) => {
                tracing::error!(run = %id, error = with_causes(&error), "its log cannot be read; it is left alone");
                continue;
            }
        };
        if history.submitter() == Mode::Embedded
            || history.mirrored().is_some()
            || history.ended().is_some()
            || history.stopped().is_some()
        {
            inputs.send(Input::Archived(Box::new(archived(&dir, &history))));
            continue;
        }
        match take_over(store, dir.clone(), &history, coordinator).await {
            Ok(opened) => inputs.send(Input::Opened(Box::new(Ok(opened)), None)),
            Err(error @ SubmitError::WentOn(_)) => {
                tracing::error!(run = %id, error = with_causes(&error), "it is not taken up");
                let mut status = archived(&dir, &history);
                status.detail = with_causes(&error);
                inputs.send(Input::Archived(Box::new(status)));
            }
            Err(error @ SubmitError::Office(_)) => {
                tracing::error!(run = %id, error = with_causes(&error), "it cannot be taken up; trying again");
                again.push(id);
            }
            Err(error) => tracing::error!(run = %id, error = with_causes(&error), "it cannot be taken up"),
        }
    }
    again
}

/// How a run stands that nobody here works on.
fn archived(dir: &RunDir, history: &History) -> v1::RunStatus {
    let spec = stored_spec(dir.id(), history).ok();
    let checkpoint = history.checkpoints().last().map(|checkpoint| checkpoint.step);
    let (mut loss, mut val_loss, mut step) = (None, None, checkpoint.unwrap_or(0));
    let mut detail = String::new();
    let phase = match history.ended() {
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
    if let Some(mirror) = history.mirrored() {
        detail = format!("a replica of {}", mirror.source);
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
        epoch: history.epoch(),
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

fn outcome_word(ended: &Ended) -> &'static str {
    match ended.outcome {
        Outcome::Finished => "finished",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "been cancelled",
    }
}

/// A new run's id: its name and six random characters, none of them easily mistaken for another.
pub fn new_run_id(name: &str) -> Result<RunId, SubmitError> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random).map_err(|error| SubmitError::Name(error.to_string()))?;
    let suffix: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    format!("{name}-{suffix}").parse().map_err(|error| SubmitError::Name(format!("{error}")))
}
