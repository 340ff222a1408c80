//! Runs submitted and resumed, and what taking one over takes.

use std::collections::BTreeSet;

use tonic::Status;
use whimbrel_core::{Past, Start};
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_spec::{Mistakes, RunSpec};
use whimbrel_store::{
    AppendError, CreateError, Ended, LogError, Mode, Outcome, ProbeError, Record, RunDir, RunLog, Store,
    StoreError, Term, TermError,
};

use crate::open::{facts, replicas::{self, FetchError, NotFetched, Replica, ReplicaError, WentOn}};

/// A run whose term this coordinator holds.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) dir: RunDir,
    pub(crate) spec: RunSpec,
    pub(crate) term: Term,
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
    /// What one of its other stores knows more could not be fetched.
    #[error(transparent)]
    NotFetched(NotFetched),
    /// The store's runs could not be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run's directory could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The run's log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run's term could not be taken.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The run was made, and a coordinator over the same store took it up before this one could.
    #[error(
        "run {run} was made, and {coordinator}, over the same store, has taken it up: look there, and do not submit it again"
    )]
    TakenUp {
        /// The run.
        run: RunId,
        /// Who took it up.
        coordinator: String,
    },
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
    /// It was stopped, and nobody asked for it to go on.
    #[error("run {0} was stopped; resume it if it is to go on")]
    Stopped(RunId),
    /// It is going on here.
    #[error("run {0} is already under way here")]
    UnderWay(RunId),
}

impl From<FetchError> for SubmitError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Term(error) => Self::Append(error),
            FetchError::NotFetched(error) => Self::NotFetched(error),
        }
    }
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
            | SubmitError::NotFetched(_)
            | SubmitError::Store(_)
            | SubmitError::Create(_)
            | SubmitError::Log(_)
            | SubmitError::Term(_)
            | SubmitError::TakenUp { .. }
            | SubmitError::Append(_)
            | SubmitError::Stopped(_)
            | SubmitError::Over(..) => Self::failed_precondition(text),
        }
    }
}

/// Makes the directory of a new run and takes its term.
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
    let term = dir.start_term_after(0, coordinator).await.map_err(|error| match error {
        TermError::Taken { coordinator, .. } => SubmitError::TakenUp { run: id, coordinator },
        error => error.into(),
    })?;
    let (start, past, found) = (Start::Initial, Past::default(), Vec::new());
    Ok(Opened { dir, spec, term, start, past, replicas, found })
}

/// Takes the term of a run that is in the store.
pub(crate) async fn resume(store: &Store, run: &str, coordinator: &str) -> Result<Opened, SubmitError> {
    let unknown = || SubmitError::Unknown(run.to_owned(), store.uri().to_owned());
    let id: RunId = run.parse().map_err(|_| unknown())?;
    if !store.runs().await?.contains(&id) {
        return Err(unknown());
    }
    let dir = store.run(&id);
    let run_log = dir.run_log().await?;
    if let Some(outcome) = run_log.ended() {
        return Err(SubmitError::Over(id, outcome_word(outcome).to_owned()));
    }
    store.probe().await?;
    take_over(store, dir, &run_log, coordinator, Wish::Resume).await
}

/// Why a run's term is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Somebody wants it to go on.
    Resume,
    /// It goes on, as far as is known, and nobody has it.
    Adopt,
}

/// Takes the term of a run whose log is `history`, unless it went on in another of its stores.
pub(crate) async fn take_over(
    store: &Store,
    dir: RunDir,
    run_log: &RunLog,
    coordinator: &str,
    wish: Wish,
) -> Result<Opened, SubmitError> {
    let spec = stored_spec(dir.id(), run_log)?;
    let replicas = replicas::of_run(store, dir.id(), &spec);
    let mut compared = match replicas::compare(&dir, run_log, &replicas).await {
        Ok(compared) => compared,
        // Or it went on here, after the log was read, and the replica follows already.
        Err(_) => replicas::compare(&dir, &dir.run_log().await?, &replicas).await?,
    };
    // What is read with the term in hand is the last word: nobody of a lower epoch adds to it any more.
    let mut term = match wish {
        Wish::Resume => dir.start_term(coordinator).await?,
        // Nobody asked for it to be taken from who has it, but for whoever had it when its log was read.
        Wish::Adopt => dir.start_term_after(run_log.epoch(), coordinator).await?,
    };
    let fetched = compared.fetch(&mut term).await;
    let found = compared.said;
    for text in &found {
        tracing::warn!(run = %dir.id(), "{text}");
    }
    fetched?;
    if let Some(outcome) = term.run_log().ended() {
        return Err(SubmitError::Over(dir.id().clone(), outcome_word(outcome).to_owned()));
    }
    // While its term was being taken, or by what a replica knows.
    if wish == Wish::Adopt && term.run_log().stopped().is_some() {
        return Err(SubmitError::Stopped(dir.id().clone()));
    }
    let start = newest_but(term.run_log(), &BTreeSet::new());
    // Said even of a run that was not stopped, as far as is known here: what a store that is out of reach knows of a stop or
    // an end before this counts no more.
    term.append(Record::Resumed { step: start.step() }).await?;
    let past = facts::past(term.run_log());
    Ok(Opened { start, past, dir, spec, term, replicas, found })
}

/// Where a run goes on from: its newest good checkpoint that is none of those with these manifests, or its beginning.
pub(crate) fn newest_but(run_log: &RunLog, manifests: &BTreeSet<String>) -> Start {
    let newest = run_log.checkpoints().into_iter().rfind(|found| !manifests.contains(&found.manifest));
    newest.map_or(Start::Initial, |found| Start::Checkpoint { step: found.step, manifest: found.manifest })
}

pub(crate) fn stored_spec(run: &RunId, run_log: &RunLog) -> Result<RunSpec, SubmitError> {
    RunSpec::parse("the stored spec", run_log.spec(), &[])
        .map_err(|source| SubmitError::StoredSpec { run: run.clone(), source })
}

fn outcome_word(ended: &Ended) -> &'static str {
    match ended.outcome {
        Outcome::Finished => "finished",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "been cancelled",
    }
}

/// A new run's id: its name and a random word.
pub fn new_run_id(name: &str) -> Result<RunId, SubmitError> {
    let random = random_word().map_err(|error| SubmitError::Name(error.to_string()))?;
    format!("{name}-{random}").parse().map_err(|error| SubmitError::Name(format!("{error}")))
}

/// Six random characters, none of them easily mistaken for another.
pub(crate) fn random_word() -> Result<String, getrandom::Error> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}
