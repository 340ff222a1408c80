//! The stores in which a run is kept besides, when it is opened: what is refused, and what is only said.
//!
//! A run's stores are its spec's `store` and `replicas`. It is held in one of them, most often the first, and after that
//! one was lost in another; the rest are its *replicas*, and `replication` keeps them in step.

use std::{
    cmp::Reverse,
    mem::take,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{sync::Semaphore, time::timeout};
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_spec::RunSpec;
use whimbrel_store::{
    AppendError, CheckpointInfo, CopyError, CopyProgress, LeftOut, Limits, LogError, OpenError, ProbeError,
    Relation, RunDir, RunLog, Store, Term, is_ahead, newer, recover_from, relation, shell,
};

/// A replica that has not shown its log within this time is gone on without.
const LOOK: Duration = Duration::from_secs(20);
/// Between two words on how far a fetch is.
const SAID_EVERY: Duration = Duration::from_secs(15);
/// Runs whose replicas are looked at at a time: a log is to be slow because its store is, and not because of the others.
static LOOKS: Semaphore = Semaphore::const_new(128);
/// Fetches at a time, of however many runs are taken up: each has up to half a GiB of packs in memory.
static FETCHES: Semaphore = Semaphore::const_new(2);

/// A store in which a copy of a run is kept.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// The store's URI.
    pub(crate) store: String,
    /// The run in it, if the store could be opened.
    pub(crate) dir: Option<RunDir>,
}

/// A replica that will not do, at the submission of a run.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// It cannot be opened.
    #[error("the replica {uri} cannot be opened; correct `replicas` under [checkpoint]")]
    Open {
        /// The store as it was written.
        uri: String,
        /// Why not.
        source: OpenError,
    },
    /// It is where the run itself is, or named twice.
    #[error("the replica {uri} is {other} under another name; take it out of `replicas` under [checkpoint]")]
    Same {
        /// The store as it was written.
        uri: String,
        /// What it is.
        other: String,
    },
    /// It does not do what a run needs.
    #[error("the replica {uri} will not do; correct `replicas` under [checkpoint], or what it lacks")]
    Probe {
        /// The store.
        uri: String,
        /// What it lacks.
        source: ProbeError,
    },
}

/// The run went on in another of its stores after this one.
#[derive(Debug, thiserror::Error)]
#[error(
    "run {run} went on at {at} ({coordinator}, epoch {epoch}){without}; resume it there: whimbrel run … --resume {}",
    shell::word(at)
)]
pub struct WentOn {
    /// The run.
    pub run: RunId,
    /// Where it went on.
    pub at: String,
    /// The epoch there.
    pub epoch: u64,
    /// Who holds it there.
    pub coordinator: String,
    /// ` without what was done here`, or nothing.
    without: &'static str,
}

/// A replica knows what the run's directory lost, and it could not be fetched. The run does not go on without it: once it
/// did, nobody would ever go on from there.
#[derive(Debug, thiserror::Error)]
#[error(
    "{from} has {what} of run {run}, which {to} lacks, and it could not be fetched; try again once it can be, or, for \
     the run to go on without it, move {from} out of the way"
)]
pub struct NotFetched {
    run: RunId,
    from: String,
    to: String,
    what: String,
    source: CopyError,
}

/// Why what a replica knows more is not fetched.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The term under which it was to be is no longer held, or its log cannot be read.
    Term(AppendError),
    /// It was tried.
    NotFetched(NotFetched),
}

/// Opens the replicas of a new run and tries each. The spec names them by their canonical URIs from then on, so that it
/// means the same wherever the run is taken up.
pub async fn submitted(store: &Store, spec: &mut RunSpec) -> Result<Vec<Store>, ReplicaError> {
    let mut replicas: Vec<Store> = Vec::new();
    for uri in &spec.checkpoint.replicas {
        let opened = Store::open(uri).map_err(|source| ReplicaError::Open { uri: uri.clone(), source })?;
        let others = std::iter::once((store, "the run's own store"));
        let mut others = others.chain(replicas.iter().map(|other| (other, "another replica")));
        if let Some((_, other)) = others.find(|(other, _)| other.uri() == opened.uri()) {
            return Err(ReplicaError::Same { uri: uri.clone(), other: other.to_owned() });
        }
        replicas.push(opened);
    }
    let probes = replicas.iter().map(async |replica| {
        let uri = || replica.uri().to_owned();
        replica.probe().await.map_err(|source| ReplicaError::Probe { uri: uri(), source })
    });
    join_all(probes).await.into_iter().collect::<Result<(), _>>()?;
    spec.checkpoint.store = Some(store.uri().to_owned());
    spec.checkpoint.replicas = replicas.iter().map(|replica| replica.uri().to_owned()).collect();
    Ok(replicas)
}

/// The replicas of a run that is in `store`: all of its stores but that one. What cannot be opened from here is said, and
/// tried again later.
pub(crate) fn of_run(store: &Store, run: &RunId, spec: &RunSpec) -> Vec<Replica> {
    let mut found: Vec<Replica> = Vec::new();
    for uri in spec.checkpoint.store.iter().chain(&spec.checkpoint.replicas) {
        let replica = match Store::open(uri) {
            Ok(opened) => Replica { store: opened.uri().to_owned(), dir: Some(opened.run(run)) },
            Err(error) => {
                tracing::warn!(%run, uri, error = with_causes(&error), "a replica cannot be opened from here");
                Replica { store: uri.clone(), dir: None }
            }
        };
        if replica.store != store.uri() && found.iter().all(|other| other.store != replica.store) {
            found.push(replica);
        }
    }
    // A spec from before there were replicas names its store as the user wrote it, which may be anything.
    if spec.checkpoint.replicas.is_empty() { Vec::new() } else { found }
}

/// What the replicas of a run show when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// What is to be said aloud: replicas out of reach are no reason not to go on.
    pub(crate) said: Vec<String>,
    /// Replicas that know more than the run's directory, and their logs, the one with the newest checkpoint first.
    with_news: Vec<(RunDir, RunLog)>,
}

/// Looks whether the run, whose log is `history`, went on in one of its replicas, and which checkpoint is the newest.
pub(crate) async fn compare(
    here: &RunDir,
    run_log: &RunLog,
    replicas: &[Replica],
) -> Result<Compared, WentOn> {
    let dirs: Vec<_> = replicas.iter().filter_map(|replica| replica.dir.as_ref()).collect();
    // It is never closed; if it were, more at a time would be the smaller harm.
    let _turn = if dirs.is_empty() { None } else { LOOKS.acquire().await.ok() };
    let logs = dirs.into_iter().map(async |dir| (dir, timeout(LOOK, dir.run_log()).await));
    let mut compared = Compared::default();
    for (dir, log) in join_all(logs).await {
        let at = dir.uri();
        let there = match log {
            Ok(Ok(there)) => there,
            Ok(Err(LogError::NoRun { .. })) => continue,
            Ok(Err(error)) => {
                let why = with_causes(&error);
                compared.said.push(format!(
                    "the replica {at} cannot be read ({why}): if the run went on there, it is not seen"
                ));
                continue;
            }
            Err(_) => {
                let seconds = LOOK.as_secs();
                compared.said.push(format!(
                    "the replica {at} did not answer within {seconds} s: if the run went on there, it is not seen"
                ));
                continue;
            }
        };
        let without = match relation(run_log, &there) {
            Relation::Ahead => "",
            Relation::Diverged => " without what was done here",
            // It may have what the run's directory lost.
            Relation::Behind | Relation::Same => {
                if is_ahead(&there, run_log) {
                    compared.with_news.push((dir.clone(), there));
                }
                continue;
            }
        };
        return Err(WentOn {
            run: here.id().clone(),
            at: at.to_owned(),
            epoch: there.epoch(),
            coordinator: there.leader().to_owned(),
            without,
        });
    }
    compared.with_news.sort_by_key(|(_, there)| Reverse(newest(there).map(|newest| newest.origin)));
    Ok(compared)
}

fn newest(run_log: &RunLog) -> Option<CheckpointInfo> {
    run_log.checkpoints().pop()
}

impl Compared {
    /// Copies what replicas know more than the run's directory to it, under the term just taken: the newest checkpoint,
    /// and whether the run was stopped or has ended. Then the run's directory was resumed as a copy, or lost the end of its
    /// log. What one replica does not give, another may.
    ///
    /// However long it takes: each request has a deadline of its own.
    pub(crate) async fn fetch(&mut self, term: &mut Term) -> Result<(), FetchError> {
        let mut failed = Vec::new();
        for (there, log) in take(&mut self.with_news) {
            if !is_ahead(&log, term.run_log()) {
                continue;
            }
            let (from, to) = (there.uri(), term.run().uri().to_owned());
            tracing::info!(from, to, "a replica knows more; it is fetched when its turn comes");
            // It is never closed; if it were, more memory would be the smaller harm.
            let _turn = FETCHES.acquire().await.ok();
            tracing::info!(from, to, "fetching what a replica knows more");
            let (mut bytes, mut said) = (0, Instant::now());
            let mut progress = |seen| {
                let (CopyProgress::Moved { bytes: moved } | CopyProgress::Found { bytes: moved }) = seen
                else {
                    return;
                };
                bytes += moved;
                if said.elapsed() >= SAID_EVERY {
                    said = Instant::now();
                    tracing::info!(from, bytes, "fetching what a replica knows more");
                }
            };
            let copied = match recover_from(term, &there, &Limits::default(), &mut progress).await {
                Ok(copied) => copied,
                Err(CopyError::Append(error @ AppendError::Fenced { .. })) => {
                    return Err(FetchError::Term(error));
                }
                Err(error) => {
                    tracing::warn!(from, to, error = with_causes(&error), "it could not be fetched");
                    failed.push((there, log, error));
                    continue;
                }
            };
            for LeftOut { step, why, .. } in &copied.left_out {
                let why = with_causes(why);
                self.said
                    .push(format!("{from} has a newer checkpoint, of step {step}, that is damaged: {why}"));
            }
            for step in &copied.committed {
                self.said.push(format!("{from} had a newer checkpoint, of step {step}; it is here now"));
            }
        }
        for (there, log, source) in failed {
            if is_ahead(&log, term.run_log()) {
                let newest = newer(&log, term.run_log()).pop();
                let what = newest.map(|newest| format!("a checkpoint of step {}", newest.step));
                let what = what.unwrap_or_else(|| "the end".into());
                let (run, from, to) = (there.id().clone(), there.uri().into(), term.run().uri().into());
                return Err(FetchError::NotFetched(NotFetched { run, from, to, what, source }));
            }
        }
        Ok(())
    }
}
