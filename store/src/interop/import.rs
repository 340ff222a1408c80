//! A model's folder made a checkpoint, from which a run goes on.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use whimbrel_state::{Hash, Layout, Manifest, Pack, manifest};

use super::model::{Model, ModelError};
use crate::{
    checkpoint::{
        commit::{CommitError, Committed, commit},
        pack,
        save::{Limits, SaveError, save_slice},
    },
    log::{
        entry::{Mode, Record, Stopped},
        run_dir::RunDir,
        run_log::LogError,
        term::{AppendError, CreateError, TermError},
    },
    object::folder::StoreError,
};

/// What the checkpoint is to say of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// Steps applied to the state: the run goes on with the next.
    pub step: u64,
    /// Samples in the data set that it is trained on.
    pub samples: u64,
    /// The run spec of a run to be created; without one the run must be there, stopped.
    pub spec: Option<String>,
    /// Takes the term of a run that is not known to be stopped: a coordinator that works on it is fenced.
    pub start_term: bool,
    /// Who imports, in words for people.
    pub who: String,
}

/// A checkpoint made of a model's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The checkpoint.
    pub committed: Committed,
    /// The digest of its state.
    pub state: Hash,
}

/// A model's folder that was not made a checkpoint. Packs that were put stay until the run's next collection; importing
/// again skips them.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The folder cannot be read to its end.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The packs cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The run is over.
    #[error(
        "the run {run} has ended, and no checkpoint of it is gone on from; import into a store, as a new run"
    )]
    Ended {
        /// The run's URI.
        run: String,
    },
    /// The run goes on elsewhere.
    #[error("{run} is a replica of {source_uri}, where the run goes on: import there")]
    Replica {
        /// The run's URI.
        run: String,
        /// Where it goes on.
        source_uri: String,
    },
    /// Somebody may be working on the run.
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
    /// The term of the run cannot be taken.
    #[error(transparent)]
    Term(#[from] TermError),
    /// The checkpoint cannot be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// That the run is stopped cannot be recorded.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Saves a model's tensors as a checkpoint of `run`, creating the run if [`ImportOptions::spec`] is there. `progress` is told
/// the bytes of each slice saved. Up to [`Limits::concurrency`] packs, and a few more, are in memory.
///
/// The log hears of it last: an import that dies leaves packs that nobody refers to, and no run. In the moment between
/// the run's first entry and its checkpoint it leaves a run without one: importing with the same spec into the same run
/// again goes on with it, if [`ImportOptions::start_term`] is set or nobody had taken its term yet.
pub async fn import(
    run: &RunDir,
    model: Arc<Model>,
    options: &ImportOptions,
    limits: &Limits,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Imported, ImportError> {
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
        match run.create(spec, Mode::Embedded).await {
            Err(CreateError::Exists { .. }) if is_left_over(run, spec, options).await? => {}
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
        layout: model.layout().clone(),
        packs,
    };
    let committed = commit(&mut term, &manifest, Some(state)).await?;
    if term.run_log().stopped().is_none() {
        let reason = format!("imported by {}", options.who);
        term.append(Record::Stopped(Stopped { step: options.step, reason })).await?;
    }
    Ok(Imported { committed, state })
}

/// Whether a run that is there already is what an import with the same spec left when it died before its checkpoint.
async fn is_left_over(run: &RunDir, spec: &str, options: &ImportOptions) -> Result<bool, ImportError> {
    let run_log = run.run_log().await?;
    let untouched = run_log.spec() == spec
        && run_log.all_checkpoints().is_empty()
        && run_log.replica_of().is_none()
        && run_log.stopped().is_none()
        && run_log.ended().is_none();
    // Somebody may be about to train it.
    if untouched && run_log.coordinator().is_some() && !options.start_term {
        return Err(ImportError::NotStopped { run: run.uri().to_owned() });
    }
    Ok(untouched)
}

/// Puts the packs, and computes the digest of the state on the way.
async fn save(
    run: &RunDir,
    model: Arc<Model>,
    step: u64,
    limits: &Limits,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(Vec<Pack>, Hash), ImportError> {
    let layout = model.layout().clone();
    let cuts = pack::cut(&layout, 0..layout.bytes(), limits.pack_bytes);
    let (feed, fed) = mpsc::channel(1);
    let (feed_digest, fed_digest) = mpsc::channel(1);
    let reading = tokio::task::spawn_blocking(move || read(&model, cuts, &feed, &feed_digest));
    let digest_layout = layout.clone();
    let digest = tokio::task::spawn_blocking(move || digest(&digest_layout, step, fed_digest));

    let saves = stream::unfold(fed, async |mut fed| Some((fed.recv().await?, fed)));
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
    // The reader has fed it all there is.
    let lost = || SaveError::Range { range: 0..layout.bytes(), why: "its digest could not be computed" };
    Ok((packs, digest.ok_or_else(lost)?))
}

/// Reads the slices one after another, for the saves and for the digest, until one of them has gone away.
fn read(
    model: &Model,
    cuts: Vec<Range<usize>>,
    saves: &mpsc::Sender<(Range<usize>, Bytes)>,
    digest: &mpsc::Sender<Bytes>,
) -> Result<(), ModelError> {
    for cut in cuts {
        let bytes = Bytes::from(model.read(cut.clone())?);
        if digest.blocking_send(bytes.clone()).is_err() || saves.blocking_send((cut, bytes)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The digest of the state that comes in slices, in order; `None` if they end before it does.
fn digest(layout: &Layout, step: u64, mut fed: mpsc::Receiver<Bytes>) -> Option<Hash> {
    let mut ahead = Bytes::new();
    let digest = whimbrel_state::digest(layout, step, |index, sink| {
        let mut left = layout.range_of(index).len();
        while left > 0 {
            if ahead.is_empty() {
                ahead = fed.blocking_recv().ok_or(())?;
            }
            let part = ahead.split_to(left.min(ahead.len()));
            left -= part.len();
            sink(&part);
        }
        Ok::<_, ()>(())
    });
    digest.ok()
}
