//! What a copy will move.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::future::BoxFuture;
use whimbrel_state::{Hash, Manifest, Pack};

use crate::{
    checkpoint::{ReadManifestError, pack_hash},
    copy::{
        error::CopyError,
        report::{Amount, CopySize, SkipReason, SkippedCheckpoint},
    },
    gc::Kept,
    log::{CheckpointInfo, LogError, ReplicaLogError, RunDir, RunLog, output, refusal},
    object::StoreError,
};

/// Which checkpoints of a run to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointSelection {
    /// All that can be used.
    All,
    /// The newest.
    Newest,
    /// That of this step; if there are several, the newest of them.
    Step(u64),
}

/// A copy that is planned and not begun.
#[derive(Debug)]
pub struct CopyPlan {
    /// What it will move.
    pub work: CopyWork,
    pub(super) source_log: RunLog,
    /// The destination's log; `None` if the run is not there yet.
    pub(super) destination_log: Option<RunLog>,
}

/// The checkpoints that a copy brings to its destination, and what has to move for that.
#[derive(Debug)]
pub struct CopyWork {
    pub(super) source: RunDir,
    pub(super) destination: RunDir,
    /// The checkpoints that will be in the destination, newest first.
    pub checkpoints: Vec<PlannedCheckpoint>,
    /// What will move. The output is known only to a plan of [`plan_copy`].
    pub to_move: CopySize,
    /// Packs that are in the destination already.
    pub there: Amount,
    /// Checkpoints whose manifests cannot be used.
    pub skipped: Vec<SkippedCheckpoint>,
}

/// A checkpoint that will be in the destination.
#[derive(Debug)]
pub struct PlannedCheckpoint {
    /// What the source's log says of it.
    pub checkpoint: CheckpointInfo,
    /// Whether it is committed in the destination already.
    pub committed: bool,
    pub(super) manifest: Manifest,
    pub(super) manifest_bytes: Bytes,
    /// Its packs that the destination lacks, as far as the plan knows.
    pub(super) missing: Vec<Pack>,
}

impl PlannedCheckpoint {
    /// Whether there is nothing left to do for it.
    pub(super) fn is_done(&self) -> bool {
        self.committed && self.missing.is_empty()
    }
}

impl CopyWork {
    /// The source.
    pub fn source(&self) -> &RunDir {
        &self.source
    }

    /// The destination.
    pub fn destination(&self) -> &RunDir {
        &self.destination
    }

    /// The packs that will move, each once. With each come the indices of the checkpoints that wait for it.
    pub(super) fn moves(&self) -> Vec<(Pack, Vec<usize>)> {
        let mut positions: HashMap<Hash, usize> = HashMap::new();
        let mut moves: Vec<(Pack, Vec<usize>)> = Vec::new();
        for (index, planned) in self.checkpoints.iter().enumerate() {
            for pack in &planned.missing {
                let position = *positions.entry(pack.hash).or_insert_with(|| {
                    moves.push((pack.clone(), Vec::new()));
                    moves.len() - 1
                });
                moves[position].1.push(index);
            }
        }
        moves
    }
}

/// Reads both sides and says what the destination lacks of the selected checkpoints. Nothing is written.
///
/// The plan is an estimate. Each step of the copy looks again, so changes on either side do no harm.
pub fn plan_copy<'a>(
    source: &'a RunDir,
    destination: &'a RunDir,
    selection: CheckpointSelection,
) -> BoxFuture<'a, Result<CopyPlan, CopyError>> {
    Box::pin(async move {
        check_names(source, destination)?;
        let run_log = source.run_log().await?;
        let mut wanted = run_log.checkpoints();
        match selection {
            CheckpointSelection::All => {}
            CheckpointSelection::Newest => wanted = wanted.pop().into_iter().collect(),
            CheckpointSelection::Step(step) => {
                wanted.retain(|checkpoint| checkpoint.step == step);
                wanted = wanted.pop().into_iter().collect();
                if wanted.is_empty() {
                    return Err(CopyError::NoSuchStep { source_uri: source.uri().to_owned(), step });
                }
            }
        }
        let destination_log = log_of(destination).await?;
        if let Some(destination_log) = &destination_log
            && let Some(refusal) = refusal(source, &run_log, destination, destination_log)
        {
            return Err(refusal.into());
        }
        let wanted = wanted.iter().collect();
        let mut work = plan_work(source, destination, destination_log.as_ref(), wanted, None).await?;
        for missing in output::missing(source, destination).await? {
            work.to_move.output.add(missing.meta.size);
        }
        Ok(CopyPlan { work, source_log: run_log, destination_log })
    })
}

/// The log of a destination; `None` if the run is not there yet.
pub(super) async fn log_of(destination: &RunDir) -> Result<Option<RunLog>, CopyError> {
    match destination.run_log().await {
        Ok(run_log) => Ok(Some(run_log)),
        Err(LogError::NoRun { .. }) => Ok(None),
        Err(error) => Err(ReplicaLogError::Log(error).into()),
    }
}

/// Refuses a destination of another name: a run keeps its name wherever it is.
pub(super) fn check_names(source: &RunDir, destination: &RunDir) -> Result<(), CopyError> {
    if source.id() != destination.id() {
        return Err(CopyError::OtherName {
            source_uri: source.uri().to_owned(),
            source_id: source.id().clone(),
            destination: destination.uri().to_owned(),
            destination_id: destination.id().clone(),
        });
    }
    Ok(())
}

/// Plans the copy of the checkpoints `wanted`, newest last. `destination_log` is the destination's log; `None` if the run
/// is not there yet.
///
/// With `kept`, which says what a whole destination has, nothing is listed. A pack that is there all the same is found
/// when it is to move.
pub(super) async fn plan_work(
    source: &RunDir,
    destination: &RunDir,
    destination_log: Option<&RunLog>,
    wanted: Vec<&CheckpointInfo>,
    kept: Option<&Kept>,
) -> Result<CopyWork, CopyError> {
    let stored = match kept {
        Some(kept) => Stored::Kept(kept),
        None => Stored::list(destination).await?,
    };
    let mut work = CopyWork {
        source: source.clone(),
        destination: destination.clone(),
        checkpoints: Vec::new(),
        to_move: CopySize::default(),
        there: Amount::default(),
        skipped: Vec::new(),
    };
    let mut counted = HashSet::new();
    for checkpoint in wanted.into_iter().rev() {
        let (manifest, manifest_bytes) = match source.manifest_and_bytes(&checkpoint.manifest).await {
            Ok(read) => read,
            Err(ReadManifestError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let (step, manifest) = (checkpoint.step, checkpoint.manifest.clone());
                work.skipped.push(SkippedCheckpoint { step, manifest, why: SkipReason::Manifest(error) });
                continue;
            }
        };
        for pack in manifest.packs.iter().filter(|pack| counted.insert(pack.hash)) {
            if stored.has_pack(pack) { &mut work.there } else { &mut work.to_move.packs }.add(pack.length);
        }
        let missing = manifest.packs.iter().filter(|pack| !stored.has_pack(pack)).cloned().collect();
        // A checkpoint whose manifest was lost is committed again. Listings lag: a manifest that is not listed is
        // looked up.
        let committed = destination_log.is_some_and(|log| has_usable(log, checkpoint))
            && (stored.has_manifest(&checkpoint.manifest)
                || destination.folder().head(&checkpoint.manifest).await?.is_some());
        if !committed {
            work.to_move.manifests.add(manifest_bytes.len() as u64);
        }
        let checkpoint = checkpoint.clone();
        work.checkpoints.push(PlannedCheckpoint { checkpoint, committed, manifest, manifest_bytes, missing });
    }
    Ok(work)
}

/// What a destination stores.
enum Stored<'a> {
    /// All packs with their lengths, and all manifests.
    Listed { packs: HashMap<Hash, u64>, manifests: HashSet<String> },
    /// The checkpoints that a collection kept; nothing else is known.
    Kept(&'a Kept),
}

impl Stored<'_> {
    async fn list(destination: &RunDir) -> Result<Self, StoreError> {
        let packs = destination.folder().list("packs").await?.into_iter();
        let packs = packs.filter_map(|object| Some((pack_hash(&object.name)?, object.meta.size))).collect();
        let manifests = destination.folder().list("manifests").await?;
        let manifests = manifests.into_iter().map(|object| object.name).collect();
        Ok(Self::Listed { packs, manifests })
    }

    fn has_pack(&self, pack: &Pack) -> bool {
        match self {
            Self::Listed { packs, .. } => packs.get(&pack.hash) == Some(&pack.length),
            Self::Kept(kept) => kept.names(&pack.hash),
        }
    }

    fn has_manifest(&self, manifest: &str) -> bool {
        match self {
            Self::Listed { manifests, .. } => manifests.contains(manifest),
            Self::Kept(kept) => kept.packs_of(manifest).is_some(),
        }
    }
}

/// Whether a checkpoint of another log is usable in this one, with the same origin or a later one.
pub(super) fn has_usable(run_log: &RunLog, checkpoint: &CheckpointInfo) -> bool {
    let there = run_log.usable_checkpoint(&checkpoint.manifest);
    there.is_some_and(|there| there.origin >= checkpoint.origin)
}
