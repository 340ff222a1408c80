//! Saving a model as a checkpoint, from which a run goes on.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use tokio::sync::mpsc;
use whimbrel_state::{Fingerprint, Hash, Manifest, Pack, manifest};

use crate::{
    checkpoint::{CommitError, Committed, DigestInput, SaveError, commit, cut, digest_received, save_slice},
    interop::model::{Model, ModelError},
    log::{AppendError, CreateError, HostedBy, LogError, Record, RunDir, Stopped, TermError},
    object::{Limits, StoreError},
};

/// What an import records, and what it may do to an existing run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// Steps applied to the state. The run goes on with the next one.
    pub step: u64,
    /// Samples in the data set.
    pub samples: u64,
    /// The run spec of the run to be created; `None` imports into an existing run.
    pub spec: Option<String>,
    /// Whether to start a term over a run that is not known to be stopped. A coordinator that leads it is fenced.
    pub start_term: bool,
    /// The importing program, named for people.
    pub who: String,
}

/// An imported checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The checkpoint.
    pub committed: Committed,
    /// The digest of its state.
    pub state: Hash,
}

/// Why a model was not imported. Packs that were put stay until the run's next collection, and another import skips
/// them.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The packs cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The run has ended.
    #[error("the run {run} has ended and cannot go on from a checkpoint; import into a store, as a new run")]
    Ended {
        /// The run's URI.
        run: String,
    },
    /// The directory is a replica.
    #[error("{run} is a replica of {source_uri}, where the run goes on: import there")]
    Replica {
        /// The run's URI.
        run: String,
        /// Where the run goes on.
        source_uri: String,
    },
    /// A coordinator may be leading the run.
    #[error("the run {run} is not stopped: a coordinator may be working on it, and would be fenced")]
    NotStopped {
        /// The run's URI.
        run: String,
    },
    /// The run's log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run cannot be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// No term can be started.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The checkpoint cannot be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The entry that the run is stopped was not appended to the log.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Saves a model's tensors as a checkpoint of `run`. Creates the run if [`ImportOptions::spec`] is there. `progress` is
/// called with the number of bytes of each slice saved. Memory holds up to [`Limits::concurrency`] packs and a few
/// more.
///
/// The log is written last: an import that dies before leaves packs that nothing refers to, and no run. One that dies
/// between the run's first entry and its checkpoint leaves a run without a checkpoint. Another import with the same
/// spec goes on with that run, if no term was started over it or [`ImportOptions::start_term`] is set.
pub fn import<'a>(
    run: &'a RunDir,
    model: Arc<Model>,
    options: &'a ImportOptions,
    limits: &'a Limits,
    progress: &'a mut (dyn FnMut(u64) + Send + 'a),
) -> BoxFuture<'a, Result<Imported, ImportError>> {
    Box::pin(async move {
        if options.spec.is_none() {
            let run_log = run.run_log().await?;
            let uri = || run.uri().to_owned();
            if run_log.ended().is_some() {
                return Err(ImportError::Ended { run: uri() });
            }
            if let Some(replica) = run_log.replica_of() {
                return Err(ImportError::Replica { run: uri(), source_uri: replica.source.clone() });
            }
            if run_log.stopped().is_none() && !options.start_term {
                return Err(ImportError::NotStopped { run: uri() });
            }
        }
        let (packs, state) = save(run, model.clone(), options.step, limits, progress).await?;
        if let Some(spec) = &options.spec {
            match run.create(spec, HostedBy::Embedded).await {
                Err(CreateError::Exists { .. }) if is_unfinished_import(run, spec, options).await? => {}
                created => created?,
            }
        }
        let mut term = run.start_term(&options.who).await?;
        let manifest = Manifest {
            format: manifest::FORMAT,
            run: run.id().to_string(),
            step: options.step,
            generation: 0,
            samples: options.samples,
            fingerprint: Fingerprint::new(),
            layout: model.layout().clone(),
            packs,
        };
        let committed = commit(&mut term, &manifest, Some(state)).await?;
        if term.run_log().stopped().is_none() {
            let reason = format!("imported by {}", options.who);
            term.append(Record::Stopped(Stopped { step: options.step, reason })).await?;
        }
        Ok(Imported { committed, state })
    })
}

/// Whether an existing run was left by an import with the same spec that died before its checkpoint.
async fn is_unfinished_import(
    run: &RunDir,
    spec: &str,
    options: &ImportOptions,
) -> Result<bool, ImportError> {
    let run_log = run.run_log().await?;
    let untouched = run_log.spec() == spec
        && run_log.all_checkpoints().is_empty()
        && run_log.replica_of().is_none()
        && run_log.stopped().is_none()
        && run_log.ended().is_none();
    // A coordinator may be about to train it.
    if untouched && run_log.coordinator().is_some() && !options.start_term {
        return Err(ImportError::NotStopped { run: run.uri().to_owned() });
    }
    Ok(untouched)
}

/// Saves the packs and computes the digest of the state on the way.
async fn save(
    run: &RunDir,
    model: Arc<Model>,
    step: u64,
    limits: &Limits,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(Vec<Pack>, Hash), ImportError> {
    let layout = model.layout().clone();
    let cuts = cut(&layout, 0..layout.bytes(), limits.pack_bytes);
    let (to_save, slices) = mpsc::channel(1);
    let (to_digest, digest_input) = mpsc::channel(1);
    let reading = tokio::task::spawn_blocking(move || read(&model, cuts, &to_save, &to_digest));
    let digest_layout = layout.clone();
    let digest = tokio::task::spawn_blocking(move || digest_received(&digest_layout, step, digest_input));

    let saves = stream::unfold(slices, async |mut slices| Some((slices.recv().await?, slices)));
    let saves = saves.map(|(range, bytes): (Range<usize>, Bytes)| {
        let layout = &layout;
        async move {
            let length = bytes.len() as u64;
            let packs = save_slice(run, layout, range, bytes, limits).await?;
            Ok::<_, SaveError>((packs, length))
        }
    });
    let mut saves = std::pin::pin!(saves.buffered(limits.concurrency.max(1)));
    let mut packs = Vec::new();
    while let Some((saved, length)) = saves.try_next().await? {
        packs.extend(saved);
        progress(length);
    }
    let cut_off = |source| SaveError::Store(StoreError::CutOff { object: run.uri().to_owned(), source });
    reading.await.map_err(cut_off)??;
    let digest = digest.await.map_err(cut_off)?;
    // The reader has sent the whole state.
    let lost = || SaveError::Range { range: 0..layout.bytes(), why: "its digest could not be computed" };
    Ok((packs, digest.ok_or_else(lost)?))
}

/// Reads the slices one after another and sends them to the saves and to the digest. Ends early if a receiver is gone.
fn read(
    model: &Model,
    cuts: Vec<Range<usize>>,
    to_save: &mpsc::Sender<(Range<usize>, Bytes)>,
    to_digest: &mpsc::Sender<DigestInput>,
) -> Result<(), ModelError> {
    for cut in cuts {
        let bytes = Bytes::from(model.read(cut.clone())?);
        let for_digest = (vec![bytes.clone()], None);
        if to_digest.blocking_send(for_digest).is_err() || to_save.blocking_send((cut, bytes)).is_err() {
            break;
        }
    }
    Ok(())
}
