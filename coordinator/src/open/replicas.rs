//! The other stores of a run: opened and probed when it is submitted, opened again when it is taken over.
//!
//! A run's stores are its spec's `store` and `replicas`. A coordinator hosts the run in one of them: in the first, or in another
//! after the first was lost. The others are its *replicas*; `record/replication.rs` keeps them up to date.

use futures::future::join_all;
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_spec::RunSpec;
use whimbrel_store::{OpenError, ProbeError, RunDir, Store};

/// A store that has a copy of a run.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// The store's URI.
    pub(crate) store: String,
    /// The run's directory in it; `None` if the store could not be opened.
    pub(crate) dir: Option<RunDir>,
}

/// A replica in the spec of a new run cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// It cannot be opened.
    #[error("the replica {uri} cannot be opened; correct `replicas` under [checkpoint]")]
    Open {
        /// The store as the spec names it.
        uri: String,
        /// Why not.
        source: OpenError,
    },
    /// It is the run's own store, or another replica.
    #[error("the replica {uri} is {other} under another name; take it out of `replicas` under [checkpoint]")]
    Same {
        /// The store as the spec names it.
        uri: String,
        /// What it is.
        other: String,
    },
    /// It lacks something that a run needs.
    #[error("the replica {uri} cannot be used; correct `replicas` under [checkpoint], or what it lacks")]
    Probe {
        /// The store.
        uri: String,
        /// What it lacks.
        source: ProbeError,
    },
}

/// Opens and probes the replicas of a new run, for its submission and for `whimbrel checkpoint import`. Replaces the stores in
/// the spec by their canonical URIs, so that they mean the same wherever the run is taken over.
pub async fn open_replicas(store: &Store, spec: &mut RunSpec) -> Result<Vec<Store>, ReplicaError> {
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

/// The replicas of a run that is hosted in `store`: all of its stores but that one. A store that cannot be opened is logged;
/// its replica task and the recorder try again later.
pub(crate) fn replicas_of(store: &Store, run: &RunId, spec: &RunSpec) -> Vec<Replica> {
    let mut found: Vec<Replica> = Vec::new();
    for uri in spec.checkpoint.store.iter().chain(&spec.checkpoint.replicas) {
        let replica = match Store::open(uri) {
            Ok(opened) => Replica { store: opened.uri().to_owned(), dir: Some(opened.run(run)) },
            Err(error) => {
                tracing::warn!(%run, uri, error = with_causes(&error), "cannot open a replica; trying again later");
                Replica { store: uri.clone(), dir: None }
            }
        };
        if replica.store != store.uri() && found.iter().all(|other| other.store != replica.store) {
            found.push(replica);
        }
    }
    // Without replicas, the spec has the store's name as the user wrote it, which may not be its canonical URI.
    if spec.checkpoint.replicas.is_empty() { Vec::new() } else { found }
}
