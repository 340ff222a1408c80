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
    log::{CheckpointInfo, LogError, Origin, ReplicaLogError, RunDir, RunLog, output, refusal},
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
    pub(super) source: RunDir,
    pub(super) source_log: RunLog,
    pub(super) destination: RunDir,
    /// The destination's log; `None` if the run is not there yet.
    pub(super) destination_log: Option<RunLog>,
    /// The checkpoints that will be in the destination, newest first.
    pub checkpoints: Vec<PlannedCheckpoint>,
    /// What will move. The output is known only to a plan of [`plan_copy`].
    pub to_move: CopySize,
    /// Packs that are in the destination already.
    pub there: Amount,
    /// Checkpoints whose manifests cannot be used.
    pub skipped: Vec<SkippedCheckpoint>,
    /// The source has saved checkpoints since the plan was made.
    pub(super) source_went_on: bool,
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
    /// Its packs that the destination's listing lacks.
    pub(super) missing: Vec<Pack>,
}

impl PlannedCheckpoint {
    /// Whether there is nothing left to do for it.
    pub(super) fn is_done(&self) -> bool {
        self.committed && self.missing.is_empty()
    }
}

impl CopyPlan {
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
        let mut plan = plan_to_replica(source, run_log, destination, destination_log, wanted).await?;
        for missing in output::missing(source, destination).await? {
            plan.to_move.output.add(missing.meta.size);
        }
        Ok(plan)
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

/// Plans the copy of the checkpoints `wanted`, newest last, to a destination that is, or will be, a replica of the
/// source.
pub(super) async fn plan_to_replica(
    source: &RunDir,
    source_log: RunLog,
    destination: &RunDir,
    destination_log: Option<RunLog>,
    wanted: Vec<CheckpointInfo>,
) -> Result<CopyPlan, CopyError> {
    check_names(source, destination)?;
    if let Some(run_log) = &destination_log
        && let Some(refusal) = refusal(source, &source_log, destination, run_log)
    {
        return Err(refusal.into());
    }
    plan_checkpoints(source, source_log, destination, destination_log, wanted).await
}

/// Plans the copy of the checkpoints `wanted`, newest last, whichever of the two directories is the replica.
pub(super) async fn plan_checkpoints(
    source: &RunDir,
    source_log: RunLog,
    destination: &RunDir,
    destination_log: Option<RunLog>,
    wanted: Vec<CheckpointInfo>,
) -> Result<CopyPlan, CopyError> {
    let usable = UsableCheckpoints::of(destination_log.as_ref());
    let listing = destination.folder().list("packs").await?;
    let there: HashMap<Hash, u64> =
        listing.into_iter().filter_map(|object| Some((pack_hash(&object.name)?, object.meta.size))).collect();
    let manifests = destination.folder().list("manifests").await?;
    let manifests: HashSet<String> = manifests.into_iter().map(|object| object.name).collect();

    let mut plan = CopyPlan {
        source: source.clone(),
        source_log,
        destination: destination.clone(),
        destination_log,
        checkpoints: Vec::new(),
        to_move: CopySize::default(),
        there: Amount::default(),
        skipped: Vec::new(),
        source_went_on: false,
    };
    let mut counted = HashSet::new();
    for checkpoint in wanted.into_iter().rev() {
        let (manifest, manifest_bytes) = match source.manifest_and_bytes(&checkpoint.manifest).await {
            Ok(read) => read,
            Err(ReadManifestError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let (step, manifest) = (checkpoint.step, checkpoint.manifest);
                plan.skipped.push(SkippedCheckpoint { step, manifest, why: SkipReason::Manifest(error) });
                continue;
            }
        };
        let is_there = |pack: &&Pack| there.get(&pack.hash) == Some(&pack.length);
        for pack in manifest.packs.iter().filter(|pack| counted.insert(pack.hash)) {
            if is_there(&pack) { &mut plan.there } else { &mut plan.to_move.packs }.add(pack.length);
        }
        let missing = manifest.packs.iter().filter(|pack| !is_there(pack)).cloned().collect();
        // A checkpoint whose manifest was lost is committed again. Listings lag: a manifest that is not listed is
        // looked up.
        let committed = usable.has(&checkpoint)
            && (manifests.contains(&checkpoint.manifest)
                || destination.folder().head(&checkpoint.manifest).await?.is_some());
        if !committed {
            plan.to_move.manifests.add(manifest_bytes.len() as u64);
        }
        plan.checkpoints.push(PlannedCheckpoint { checkpoint, committed, manifest, manifest_bytes, missing });
    }
    Ok(plan)
}

/// The usable checkpoints of a log by manifest, and where each was made.
pub(super) struct UsableCheckpoints(HashMap<String, Origin>);

impl UsableCheckpoints {
    /// Those of a log. There are none in a directory without a log.
    pub(super) fn of(run_log: Option<&RunLog>) -> Self {
        let checkpoints = run_log.into_iter().flat_map(RunLog::checkpoints);
        Self(checkpoints.map(|checkpoint| (checkpoint.manifest, checkpoint.origin)).collect())
    }

    /// Whether a checkpoint of another log is among them, with the same origin or a later one.
    pub(super) fn has(&self, checkpoint: &CheckpointInfo) -> bool {
        self.0.get(&checkpoint.manifest).is_some_and(|there| *there >= checkpoint.origin)
    }
}
