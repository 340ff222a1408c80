//! The decision of a collection: which checkpoints and packs stay, and which objects are deleted.

use std::collections::{HashMap, HashSet};

use object_store::ObjectMeta;
use whimbrel_state::Hash;

use super::{age::Ages, retention::Retention};
use crate::{
    checkpoint::{ReadManifestError, pack_hash, pack_name},
    log::{CheckpointInfo, Record, RunDir, RunLog},
    object::{Listed, StoreError},
};

/// What is to be deleted, by the log as it is now.
#[derive(Debug)]
pub(super) struct Deletions {
    /// The checkpoints to record as collected, by manifest.
    pub(super) checkpoints: Vec<String>,
    /// The manifests to delete.
    pub(super) manifests: Vec<String>,
    /// The packs to delete, and their bytes.
    pub(super) packs: Vec<(Hash, u64)>,
    pub(super) unreadable: Vec<UnreadableManifest>,
}

impl Deletions {
    pub(super) fn is_empty(&self) -> bool {
        self.checkpoints.is_empty() && self.manifests.is_empty() && self.packs.is_empty()
    }
}

/// A kept checkpoint whose manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableManifest {
    /// The manifest's name.
    pub manifest: String,
    /// Why, for people.
    pub why: String,
    /// Whether it is damaged, and not merely of a later version.
    pub is_damaged: bool,
}

type Listing = HashMap<Hash, ObjectMeta>;

/// The packs that a manifest names, and their lengths.
type Packs = Vec<(Hash, u64)>;

/// The packs that manifests name, by the manifests' names. A manifest never changes.
pub(super) type ManifestCache = HashMap<String, Packs>;

/// A run and its log.
#[derive(Clone, Copy)]
struct Logged<'a> {
    dir: &'a RunDir,
    run_log: &'a RunLog,
}

/// Decides what to delete.
pub(super) async fn decide(
    dir: &RunDir,
    run_log: &RunLog,
    retention: &Retention,
    ages: &Ages,
    cache: &mut ManifestCache,
) -> Result<Deletions, StoreError> {
    let run = Logged { dir, run_log };
    let listing = run.dir.folder().list("packs").await?;
    let packs: Listing =
        listing.into_iter().filter_map(|object| Some((pack_hash(&object.name)?, object.meta))).collect();
    let mut kept = keep(run, retention, &packs, cache).await?;
    kept.packs.extend(&retention.in_flight);

    let (manifests, collected) = dead_manifests(run, &kept.removed, ages).await?;
    let mut named = HashSet::new();
    for name in &collected {
        match run.dir.manifest(name).await {
            Ok(manifest) => named.extend(manifest.packs.iter().map(|pack| pack.hash)),
            Err(ReadManifestError::Store(error)) => return Err(error),
            // The packs of a damaged manifest are not known; they are deleted by their age.
            Err(_) => {}
        }
    }
    let all_known = kept.unreadable.is_empty();
    let is_deleted = |(hash, meta): &(&Hash, &ObjectMeta)| {
        all_known && !kept.packs.contains(hash) && (named.contains(hash) || ages.is_past_grace(meta))
    };
    let mut packs: Vec<(Hash, u64)> =
        packs.iter().filter(is_deleted).map(|(hash, meta)| (*hash, meta.size)).collect();
    packs.sort_unstable();
    Ok(Deletions { checkpoints: kept.removed, manifests, packs, unreadable: kept.unreadable })
}

/// The packs that stay, and the committed checkpoints that do not.
#[derive(Default)]
struct Kept {
    packs: HashSet<Hash>,
    removed: Vec<String>,
    unreadable: Vec<UnreadableManifest>,
}

/// Whether a checkpoint can be restored, as far as can be told without reading its packs.
enum Completeness {
    /// All its packs exist with their right lengths.
    Complete(Packs),
    /// Some do not.
    Lacking(Packs),
    /// Its manifest cannot be read.
    Unreadable(UnreadableManifest),
}

/// Keeps checkpoints from the newest back until enough complete ones are kept, and then the first complete one of each
/// interval of [`Retention::every`]. The rest is removed.
async fn keep(
    run: Logged<'_>,
    retention: &Retention,
    packs: &Listing,
    cache: &mut ManifestCache,
) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    let checkpoints = run.run_log.all_checkpoints();
    let mut older = checkpoints.as_slice();
    let mut intervals = HashSet::new();
    let mut used = ManifestCache::new();
    let mut complete = 0;
    while complete < retention.last.max(1)
        && let Some((checkpoint, rest)) = older.split_last()
    {
        older = rest;
        let is_usable = checkpoint.quarantined.is_none();
        match check(run, checkpoint, packs).await? {
            Completeness::Complete(packs) => {
                complete += u32::from(is_usable);
                kept.packs.extend(packs.iter().map(|(hash, _)| hash));
            }
            Completeness::Lacking(packs) => kept.packs.extend(packs.iter().map(|(hash, _)| hash)),
            Completeness::Unreadable(unreadable) if is_usable => kept.unreadable.push(unreadable),
            Completeness::Unreadable(_) => {}
        }
    }
    for checkpoint in older {
        let interval = retention.interval_of(checkpoint, run.run_log);
        let is_wanted = |interval: &u64| checkpoint.quarantined.is_none() && !intervals.contains(interval);
        let Some(interval) = interval.filter(is_wanted) else {
            kept.removed.push(checkpoint.manifest.clone());
            continue;
        };
        match check_cached(run, checkpoint, packs, cache).await? {
            Completeness::Complete(named) => {
                intervals.insert(interval);
                kept.packs.extend(named.iter().map(|(hash, _)| hash));
                used.insert(checkpoint.manifest.clone(), named);
            }
            // It may be complete in a replica. It stays, and so does the next one, until it is quarantined.
            Completeness::Lacking(named) => kept.packs.extend(named.iter().map(|(hash, _)| hash)),
            Completeness::Unreadable(unreadable) => kept.unreadable.push(unreadable),
        }
    }
    *cache = used;
    Ok(kept)
}

/// Checks a checkpoint that is kept for its interval. There may be many of these, and they are checked after each commit:
/// each manifest is read once and cached, and from then on only its packs are looked for.
async fn check_cached(
    run: Logged<'_>,
    checkpoint: &CheckpointInfo,
    listed: &Listing,
    cache: &mut ManifestCache,
) -> Result<Completeness, StoreError> {
    match cache.remove(&checkpoint.manifest) {
        Some(packs)
            if packs
                .iter()
                .all(|(hash, length)| listed.get(hash).is_some_and(|meta| meta.size == *length)) =>
        {
            Ok(Completeness::Complete(packs))
        }
        _ => check(run, checkpoint, listed).await,
    }
}

/// Reads a checkpoint's manifest and looks for its packs. Packs that the listing lacks are looked up, since it may lag.
async fn check(
    run: Logged<'_>,
    checkpoint: &CheckpointInfo,
    listed: &Listing,
) -> Result<Completeness, StoreError> {
    let manifest = match run.dir.manifest(&checkpoint.manifest).await {
        Ok(manifest) => manifest,
        Err(ReadManifestError::Store(error)) => return Err(error),
        Err(error) => {
            let (manifest, why, is_damaged) =
                (checkpoint.manifest.clone(), error.to_string(), error.is_damage());
            return Ok(Completeness::Unreadable(UnreadableManifest { manifest, why, is_damaged }));
        }
    };
    let packs = manifest.packs.iter().map(|pack| (pack.hash, pack.length)).collect();
    for pack in &manifest.packs {
        let length = match listed.get(&pack.hash) {
            Some(meta) => Some(meta.size),
            None => run.dir.folder().head(&pack_name(&pack.hash)).await?.map(|meta| meta.size),
        };
        if length != Some(pack.length) {
            tracing::warn!(step = manifest.step, pack = %pack.hash, "a checkpoint lacks a pack and does not count among those kept");
            return Ok(Completeness::Lacking(packs));
        }
    }
    Ok(Completeness::Complete(packs))
}

/// The manifests in the store that are no checkpoint's: recorded as collected, about to be recorded, or left behind by a
/// commit that never reached the log. And again only the collected ones.
async fn dead_manifests(
    run: Logged<'_>,
    removed: &[String],
    ages: &Ages,
) -> Result<(Vec<String>, Vec<String>), StoreError> {
    let run_log = run.run_log;
    let all = run_log.all_checkpoints().into_iter().map(|checkpoint| checkpoint.manifest);
    let alive: HashSet<String> = all.filter(|manifest| !removed.contains(manifest)).collect();
    let recorded = run_log.entries().iter().filter_map(|entry| match &entry.record {
        Record::Collected { manifests } => Some(manifests),
        _ => None,
    });
    let collected: HashSet<&String> = recorded.flatten().chain(removed).collect();
    let is_dead = |object: &Listed| {
        !alive.contains(&object.name)
            && (collected.contains(&object.name) || ages.is_past_grace(&object.meta))
    };
    let listing = run.dir.folder().list("manifests").await?;
    let mut dead: Vec<String> = listing.into_iter().filter(is_dead).map(|object| object.name).collect();
    dead.sort();
    let recorded = dead.iter().filter(|name| collected.contains(name)).cloned().collect();
    Ok((dead, recorded))
}
