//! What a copy will move.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use whimbrel_state::{Hash, Manifest, Pack};

use crate::{
    checkpoint::{commit::ReadManifestError, pack},
    copy::{Amount, CopyError, LeftOut, Unusable, Which},
    log::{
        entry::Origin,
        lineage::{ReplicaLogError, refusal},
        run_dir::RunDir,
        run_log::{CheckpointInfo, LogError, RunLog},
    },
};

/// A copy that was planned and not begun.
#[derive(Debug)]
pub struct CopyPlan {
    pub(super) source: RunDir,
    pub(super) source_log: RunLog,
    pub(super) destination: RunDir,
    /// The destination's log, if the run is there.
    pub(crate) destination_log: Option<RunLog>,
    /// The checkpoints that will be in the destination, newest first.
    pub checkpoints: Vec<Planned>,
    /// What will move.
    pub to_move: Amount,
    /// What need not, since it is there.
    pub there: Amount,
    /// Checkpoints whose manifests cannot be used.
    pub left_out: Vec<LeftOut>,
    /// The source has saved checkpoints since the plan was made.
    pub(super) source_went_on: bool,
}

/// A checkpoint that will be in the destination.
#[derive(Debug)]
pub struct Planned {
    /// What the source says of it.
    pub checkpoint: CheckpointInfo,
    /// It is committed in the destination.
    pub committed: bool,
    pub(super) manifest: Manifest,
    pub(super) body: Bytes,
    /// Its packs that the destination's listing lacks.
    pub(super) missing: Vec<Pack>,
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

    /// The packs that will move, each once, and the checkpoints that wait for each.
    pub(super) fn moves(&self) -> Vec<(Pack, Vec<usize>)> {
        let mut places: HashMap<Hash, usize> = HashMap::new();
        let mut moves: Vec<(Pack, Vec<usize>)> = Vec::new();
        for (index, planned) in self.checkpoints.iter().enumerate() {
            for pack in &planned.missing {
                let place = *places.entry(pack.hash).or_insert_with(|| {
                    moves.push((pack.clone(), Vec::new()));
                    moves.len() - 1
                });
                moves[place].1.push(index);
            }
        }
        moves
    }
}

/// Reads both sides, and says what of the source the destination lacks. Nothing is written. What changes until the plan
/// is carried out does no harm: it is an estimate, and each step of the copy looks for itself.
pub async fn plan_copy(source: &RunDir, destination: &RunDir, which: Which) -> Result<CopyPlan, CopyError> {
    let run_log = source.run_log().await?;
    let mut wanted = run_log.checkpoints();
    match which {
        Which::All => {}
        Which::Newest => wanted = wanted.pop().into_iter().collect(),
        Which::Step(step) => {
            wanted.retain(|checkpoint| checkpoint.step == step);
            wanted = wanted.pop().into_iter().collect();
            if wanted.is_empty() {
                return Err(CopyError::NoSuchStep { source_uri: source.uri().to_owned(), step });
            }
        }
    }
    let there = log_of(destination).await?;
    plan(source, run_log, destination, there, wanted).await
}

/// The log of a directory that may be no run yet.
pub(crate) async fn log_of(destination: &RunDir) -> Result<Option<RunLog>, CopyError> {
    match destination.run_log().await {
        Ok(run_log) => Ok(Some(run_log)),
        Err(LogError::NoRun { .. }) => Ok(None),
        Err(error) => Err(ReplicaLogError::Log(error).into()),
    }
}

/// A run keeps its name wherever it is.
pub(crate) fn check_names(source: &RunDir, destination: &RunDir) -> Result<(), CopyError> {
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

/// Plans the copy of the checkpoints `wanted`, newest last, to where the log is `destination_history`.
pub(crate) async fn plan(
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
    compare(source, source_log, destination, destination_log, wanted).await
}

/// Says what of the checkpoints `wanted`, newest last, the destination lacks, whichever of the two is the copy.
pub(super) async fn compare(
    source: &RunDir,
    source_log: RunLog,
    destination: &RunDir,
    destination_log: Option<RunLog>,
    wanted: Vec<CheckpointInfo>,
) -> Result<CopyPlan, CopyError> {
    let usable = Usable::by(destination_log.as_ref());
    let listing = destination.folder().list("packs").await?;
    let there: HashMap<Hash, u64> = listing
        .into_iter()
        .filter_map(|object| Some((pack::hash(&object.name)?, object.meta.size)))
        .collect();
    let manifests = destination.folder().list("manifests").await?;
    let manifests: HashSet<String> = manifests.into_iter().map(|object| object.name).collect();

    let mut plan = CopyPlan {
        source: source.clone(),
        source_log,
        destination: destination.clone(),
        destination_log,
        checkpoints: Vec::new(),
        to_move: Amount::default(),
        there: Amount::default(),
        left_out: Vec::new(),
        source_went_on: false,
    };
    let mut counted = HashSet::new();
    for checkpoint in wanted.into_iter().rev() {
        let (manifest, body) = match source.manifest_and_bytes(&checkpoint.manifest).await {
            Ok(read) => read,
            Err(ReadManifestError::Store(error)) => return Err(error.into()),
            Err(error) => {
                let why = Unusable::Manifest(error);
                plan.left_out.push(LeftOut { step: checkpoint.step, manifest: checkpoint.manifest, why });
                continue;
            }
        };
        let is_there = |pack: &&Pack| there.get(&pack.hash) == Some(&pack.length);
        for pack in manifest.packs.iter().filter(|pack| counted.insert(pack.hash)) {
            if is_there(&pack) { &mut plan.there } else { &mut plan.to_move }.add(pack.length);
        }
        let missing = manifest.packs.iter().filter(|pack| !is_there(pack)).cloned().collect();
        // One whose manifest was lost is committed once more. What the listing lacks may be there all the same.
        let committed = usable.has(&checkpoint)
            && (manifests.contains(&checkpoint.manifest)
                || destination.folder().head(&checkpoint.manifest).await?.is_some());
        plan.checkpoints.push(Planned { checkpoint, committed, manifest, body, missing });
    }
    Ok(plan)
}

/// The checkpoints that can be used by a log, and where each was made.
pub(crate) struct Usable(HashMap<String, Origin>);

impl Usable {
    pub(crate) fn by(run_log: Option<&RunLog>) -> Self {
        let checkpoints = run_log.into_iter().flat_map(RunLog::checkpoints);
        Self(checkpoints.map(|checkpoint| (checkpoint.manifest, checkpoint.origin)).collect())
    }

    /// Whether a checkpoint of another log is among them, as it was made there or later.
    pub(crate) fn has(&self, checkpoint: &CheckpointInfo) -> bool {
        self.0.get(&checkpoint.manifest).is_some_and(|there| *there >= checkpoint.origin)
    }
}
