//! The stores in which a run is kept besides, when it is opened: what is refused, and what is only said.
//!
//! A run's stores are its spec's `store` and `replicas`. It is held in one of them, most often the first, and after that
//! one was lost in another; the rest are its *replicas*, and `replication` keeps them in step.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_spec::RunSpec;
use whimbrel_store::{
    History, Limits, LogError, OpenError, ProbeError, Relation, RunDir, Store, Which, plan_copy, relation,
    shell,
};

/// A replica that has not shown its log within this time is gone on without.
const LOOK: Duration = Duration::from_secs(20);
/// A newer checkpoint that a replica has is fetched within this time, or gone on without.
const FETCH: Duration = Duration::from_secs(600);

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

/// Looks whether the run went on in one of its replicas, and fetches the newest checkpoint where a replica has a newer
/// one of the same lineage. Returns what is to be said aloud: replicas out of reach are no reason not to go on.
pub(crate) async fn compare(
    here: &RunDir,
    history: &History,
    replicas: &[Replica],
    who: &str,
) -> Result<Vec<String>, WentOn> {
    let dirs = replicas.iter().filter_map(|replica| replica.dir.as_ref());
    let logs = dirs.map(async |dir| (dir, timeout(LOOK, dir.history()).await));
    let mut said = Vec::new();
    let mut newer: Option<(&RunDir, u64)> = None;
    for (dir, log) in join_all(logs).await {
        let at = dir.uri();
        let there = match log {
            Ok(Ok(there)) => there,
            Ok(Err(LogError::NoRun { .. })) => continue,
            Ok(Err(error)) => {
                let why = with_causes(&error);
                said.push(format!(
                    "the replica {at} cannot be read ({why}): if the run went on there, it is not seen"
                ));
                continue;
            }
            Err(_) => {
                let seconds = LOOK.as_secs();
                said.push(format!(
                    "the replica {at} did not answer within {seconds} s: if the run went on there, it is not seen"
                ));
                continue;
            }
        };
        let without = match relation(history, &there) {
            Relation::Ahead => "",
            Relation::Diverged => " without what was done here",
            Relation::Behind => continue,
            Relation::Same => {
                let newest = newest(&there);
                if newest > newer.map_or(self::newest(history), |(_, step)| Some(step)) {
                    newer = newest.map(|step| (dir, step));
                }
                continue;
            }
        };
        return Err(WentOn {
            run: here.id().clone(),
            at: at.to_owned(),
            epoch: there.epoch(),
            coordinator: there.coordinator().unwrap_or("another coordinator").to_owned(),
            without,
        });
    }
    if let Some((dir, step)) = newer {
        said.extend(fetch(dir, here, step, who).await);
    }
    Ok(said)
}

fn newest(history: &History) -> Option<u64> {
    history.checkpoints().last().map(|checkpoint| checkpoint.step)
}

/// Copies the newest checkpoint of `there` to `here`. What is to be said of it, if it does not arrive.
async fn fetch(there: &RunDir, here: &RunDir, step: u64, who: &str) -> Option<String> {
    tracing::info!(from = there.uri(), to = here.uri(), step, "fetching a newer checkpoint");
    let copy = async {
        let plan = plan_copy(there, here, Which::Newest).await?;
        plan.carry_out(who, &Limits::default(), &mut |_| {}).await
    };
    let why = match timeout(FETCH, copy).await {
        Ok(Ok(copied)) => match copied.left_out.first() {
            None => return None,
            Some(left_out) => with_causes(&left_out.why),
        },
        Ok(Err(error)) => with_causes(&error),
        Err(_) => format!("it took longer than {} s", FETCH.as_secs()),
    };
    let at = there.uri();
    Some(format!(
        "{at} has a newer checkpoint, of step {step}, which could not be fetched ({why}); going on without it"
    ))
}
