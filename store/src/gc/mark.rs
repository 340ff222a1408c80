//! The decision of a collection: which checkpoints stay, and which objects are deleted.
//!
//! | function | when | looks at |
//! | --- | --- | --- |
//! | [`decide_all`] | first in a term, then once each [`Retention::grace`], and whenever the other is not sure | every pack and manifest in the store, and every checkpoint |
//! | [`decide_new`] | otherwise | checkpoints committed since, and the few that they replace |

use std::collections::{HashMap, HashSet};

use object_store::ObjectMeta;
use whimbrel_state::Hash;

use super::{
    age::Ages,
    kept::{Kept, Packs},
    retention::Retention,
};
use crate::{
    checkpoint::{ReadManifestError, lacking, pack_hash, pack_name},
    log::{CheckpointInfo, Entry, Record, RunDir, RunLog},
    object::{Listed, StoreError},
};

/// What is to be deleted, by the log as it is now.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// The checkpoints to record as collected, by manifest.
    pub(super) checkpoints: Vec<String>,
    /// The manifests to delete.
    pub(super) manifests: Vec<String>,
    /// The packs to delete, and their bytes.
    pub(super) packs: Packs,
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

/// A run and its log.
#[derive(Clone, Copy)]
pub(super) struct Logged<'a> {
    pub(super) dir: &'a RunDir,
    pub(super) run_log: &'a RunLog,
}

type Listing = HashMap<Hash, ObjectMeta>;

/// Decides by all objects in the store and all checkpoints in the log. `before` is what an earlier decision kept: a manifest
/// that it knows is not read again. Returns what is kept, too.
pub(super) async fn decide_all(
    run: Logged<'_>,
    retention: &Retention,
    ages: &Ages,
    before: &Kept,
) -> Result<(Deletions, Kept), StoreError> {
    let listing = run.dir.folder().list("packs").await?;
    let packs: Listing =
        listing.into_iter().filter_map(|object| Some((pack_hash(&object.name)?, object.meta))).collect();
    let Decision { kept, removed, unreadable } = keep(run, retention, &packs, before).await?;

    let (manifests, collected) = dead_manifests(run, &removed, ages).await?;
    let mut named = HashSet::new();
    for name in &collected {
        match run.dir.manifest(name).await {
            Ok(manifest) => named.extend(manifest.packs.iter().map(|pack| pack.hash)),
            Err(ReadManifestError::Store(error)) => return Err(error),
            // The packs of a damaged manifest are not known; they are deleted by their age.
            Err(_) => {}
        }
    }
    let in_flight: HashSet<&Hash> = retention.in_flight.iter().collect();
    let is_needed = |hash: &Hash| !unreadable.is_empty() || kept.names(hash) || in_flight.contains(hash);
    let is_deleted = |(hash, meta): &(&Hash, &ObjectMeta)| {
        !is_needed(hash) && (named.contains(hash) || ages.is_past_grace(meta))
    };
    let mut packs: Packs = packs.iter().filter(is_deleted).map(|(hash, meta)| (*hash, meta.size)).collect();
    packs.sort_unstable();
    Ok((Deletions { checkpoints: removed, manifests, packs, unreadable }, kept))
}

/// Decides by the entries `new`, which are the end of the log, and by what an earlier decision kept. `None` if that is not
/// enough, so that all must be looked at: e.g. a checkpoint was quarantined, or one of the newest lacks a pack.
///
/// A checkpoint is removed only after the store was asked for each pack of those in whose favour it is removed.
pub(super) async fn decide_new(
    run: Logged<'_>,
    new: &[Entry],
    retention: &Retention,
    kept: &mut Kept,
) -> Result<Option<Deletions>, StoreError> {
    if !add_new(run, new, kept).await? {
        return Ok(None);
    }
    let (mut newest, mut older) = (Vec::new(), Vec::new());
    for checkpoint in run.run_log.newest_first() {
        if kept.settled.contains(&checkpoint.manifest) {
            break;
        }
        let is_newest = newest.len() < retention.last.max(1) as usize;
        if checkpoint.quarantined.is_some() || kept.packs_of(&checkpoint.manifest).is_none() {
            return Ok(None);
        }
        if is_newest { newest.push(checkpoint) } else { older.push(checkpoint) }
    }
    let mut removed = Vec::new();
    for checkpoint in older.into_iter().rev() {
        let interval = retention.interval_of(checkpoint, run.run_log);
        match interval.map(|interval| (interval, kept.by_interval.get(&interval))) {
            None => removed.push(checkpoint.manifest.clone()),
            Some((_, Some(first))) => {
                if !is_complete(run, first).await? {
                    return Ok(None);
                }
                removed.push(checkpoint.manifest.clone());
            }
            Some((interval, None)) => {
                if !is_complete(run, &checkpoint.manifest).await? {
                    return Ok(None);
                }
                kept.by_interval.insert(interval, checkpoint.manifest.clone());
                kept.settled.insert(checkpoint.manifest.clone());
            }
        }
    }
    if !removed.is_empty() {
        for checkpoint in newest {
            if !is_complete(run, &checkpoint.manifest).await? {
                return Ok(None);
            }
        }
    }
    let in_flight: HashSet<&Hash> = retention.in_flight.iter().collect();
    let mut packs = kept.only_of(&removed);
    packs.retain(|(hash, _)| !in_flight.contains(hash));
    packs.sort_unstable();
    Ok(Some(Deletions { checkpoints: removed.clone(), manifests: removed, packs, unreadable: Vec::new() }))
}

/// Adds the checkpoints that new entries commit. Returns whether they are the newest ones, and nothing else happened to
/// any checkpoint.
async fn add_new(run: Logged<'_>, new: &[Entry], kept: &mut Kept) -> Result<bool, StoreError> {
    let mut committed = HashSet::new();
    for entry in new {
        match &entry.record {
            Record::Checkpoint { manifest, .. } => {
                if kept.packs_of(manifest).is_some() || !committed.insert(manifest.as_str()) {
                    return Ok(false);
                }
            }
            Record::Term { .. } | Record::Quarantined { .. } | Record::Collected { .. } => return Ok(false),
            Record::Submitted { .. } | Record::Stopped(_) | Record::Resumed { .. } | Record::Ended(_) => {}
        }
    }
    let newest = run.run_log.newest_first().take(committed.len());
    if !newest.into_iter().all(|checkpoint| committed.contains(checkpoint.manifest.as_str())) {
        return Ok(false);
    }
    for name in committed {
        match run.dir.manifest(name).await {
            Ok(manifest) => {
                kept.add(name, manifest.packs.iter().map(|pack| (pack.hash, pack.length)).collect());
            }
            Err(ReadManifestError::Store(error)) => return Err(error),
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether a checkpoint's manifest can be read, and the store has all its packs.
async fn is_complete(run: Logged<'_>, manifest: &str) -> Result<bool, StoreError> {
    match run.dir.manifest(manifest).await {
        Ok(manifest) => Ok(lacking(run.dir, &manifest).await?.is_empty()),
        Err(ReadManifestError::Store(error)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// The checkpoints that stay and those that do not.
#[derive(Default)]
struct Decision {
    kept: Kept,
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
    before: &Kept,
) -> Result<Decision, StoreError> {
    let mut decision = Decision::default();
    let checkpoints = run.run_log.all_checkpoints();
    let mut older = checkpoints.as_slice();
    let mut complete = 0;
    while complete < retention.last.max(1)
        && let Some((checkpoint, rest)) = older.split_last()
    {
        older = rest;
        let is_usable = checkpoint.quarantined.is_none();
        match check(run, checkpoint, packs).await? {
            Completeness::Complete(packs) => {
                complete += u32::from(is_usable);
                decision.kept.add(&checkpoint.manifest, packs);
            }
            Completeness::Lacking(packs) => decision.kept.add_lacking(&checkpoint.manifest, packs),
            Completeness::Unreadable(unreadable) if is_usable => decision.unreadable.push(unreadable),
            Completeness::Unreadable(_) => {}
        }
    }
    for checkpoint in older {
        let interval = retention.interval_of(checkpoint, run.run_log);
        let is_wanted = |interval: &u64| {
            checkpoint.quarantined.is_none() && !decision.kept.by_interval.contains_key(interval)
        };
        let Some(interval) = interval.filter(is_wanted) else {
            decision.removed.push(checkpoint.manifest.clone());
            continue;
        };
        decision.kept.settled.insert(checkpoint.manifest.clone());
        match check_known(run, checkpoint, packs, before).await? {
            Completeness::Complete(named) => {
                decision.kept.by_interval.insert(interval, checkpoint.manifest.clone());
                decision.kept.add(&checkpoint.manifest, named);
            }
            // It may be complete in a replica. It stays, and so does the next one, until it is quarantined.
            Completeness::Lacking(named) => decision.kept.add_lacking(&checkpoint.manifest, named),
            Completeness::Unreadable(unreadable) => decision.unreadable.push(unreadable),
        }
    }
    Ok(decision)
}

/// Checks a checkpoint that is kept for its interval. There may be many of these: a manifest that is known is not read
/// again, only its packs are looked for.
async fn check_known(
    run: Logged<'_>,
    checkpoint: &CheckpointInfo,
    listed: &Listing,
    before: &Kept,
) -> Result<Completeness, StoreError> {
    let is_listed = |(hash, length): &(Hash, u64)| listed.get(hash).is_some_and(|meta| meta.size == *length);
    match before.packs_of(&checkpoint.manifest) {
        Some(packs) if packs.iter().all(is_listed) => Ok(Completeness::Complete(packs.clone())),
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
