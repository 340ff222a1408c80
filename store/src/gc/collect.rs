//! Collection: deleting checkpoints that are no longer wanted, and packs that nothing refers to.
//!
//! Only the holder of the term deletes, in this order: it reads the end of the log (am I fenced?), decides, records
//! in the log what goes, and only then deletes manifests and packs, reading the end of the log again before each batch.
//! A crash in between leaves objects that nothing refers to, and the next collection finds them.
//!
//! # Why no save under way loses a pack
//! A pack goes only if no kept manifest names it, the caller does not name it as in flight, and either a checkpoint that
//! goes named it or it is older than [`Retention::grace`]. So a pack that a save *put* stays for the grace at least,
//! which must be longer than a save takes. A pack that a save *found there* and did not put may go: then
//! [`commit`](crate::commit), which looks every pack up right before it appends to the log, refuses, and the slice is
//! saved again. Commit and collect both need `&mut Term`, so no deletion comes between look-up and entry.
//!
//! # Why nothing that was collected comes back
//! Whenever anything is deleted, an entry that says so comes first, even if it names no checkpoint: a *boundary*. A
//! commit was decided by the log up to its own entry's number and is written under that number, so one that was given up
//! and is still on its way, or one of a coordinator that was stopped and wakes, either lands before the boundary, and
//! then what goes is decided again with it in view, or finds the boundary in its place. It then looks its packs up again,
//! or learns that it is fenced.
//!
//! What remains is a coordinator that is fenced *between* its last look at the log and a deletion it has already sent
//! off, against a successor that commits a pack of the very same content in that moment. Stores have no conditional
//! delete, so this cannot be excluded; batches are small to keep it narrow, a restore notices (the hash), and a
//! checkpoint that lost a pack does not count among those that are kept.
//!
//! Ages are differences of the store's own times, the log's last entry standing for now: no clock of ours is involved.

use std::{
    collections::{HashMap, HashSet},
    mem::take,
};

use object_store::ObjectMeta;
use whimbrel_state::Hash;

use crate::{
    checkpoint::{ReadManifestError, pack_hash, pack_name},
    gc::{age::Ages, retention::Retention, temp_files},
    log::{
        entry::Record,
        run_dir::RunDir,
        run_log::{CheckpointInfo, RunLog},
        term::{AppendError, Term},
    },
    object::folder::{Listed, StoreError},
};

/// Objects deleted between two looks at the log.
const BATCH: usize = 100;

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The checkpoints that are none any more, by their manifests' names.
    pub checkpoints: Vec<String>,
    /// The names of the manifests deleted, some of which may never have been a checkpoint's.
    pub manifests: Vec<String>,
    /// The number of packs.
    pub packs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Kept checkpoints whose manifests cannot be read: their packs are not known, so none went that might be theirs.
    /// Quarantine them, or have them healed from a replica.
    pub unreadable: Vec<UnreadableManifest>,
    /// Files that a program left in a local folder when it was killed in the middle of a put.
    pub temp_files: usize,
}

/// A kept checkpoint whose manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableManifest {
    /// The manifest's name.
    pub manifest: String,
    /// Why, in words for people.
    pub why: String,
    /// Whether it is damaged, and not only of a later Whimbrel.
    pub is_damaged: bool,
}

/// A collection that was given up. What it deleted until then was not needed, and the next one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// This coordinator is fenced, or the log cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be deleted, by the log as it stands.
struct Doomed {
    /// The checkpoints to record as collected, by manifest.
    checkpoints: Vec<String>,
    /// The manifests to delete.
    manifests: Vec<String>,
    /// The packs to delete, and their bytes.
    packs: Vec<(Hash, u64)>,
    unreadable: Vec<UnreadableManifest>,
}

/// Deletes what `retention` does not keep.
///
/// Kept are the newest whole ones and the first whole one of each length of [`Retention::every`]; a checkpoint whose
/// packs are not all there does not count, so what can be restored is never deleted in favour of what cannot.
///
/// A checkpoint that should stay and whose manifest cannot be read does not count either, and until it goes, is healed or
/// is quarantined, no pack goes: any might be its own.
pub async fn collect(term: &mut Term, retention: &Retention) -> Result<Collected, CollectError> {
    term.check().await?;
    let folder = term.run().folder().clone();
    let mut known = take(&mut term.known);
    let (doomed, ages) = loop {
        let run = Logged { dir: term.run(), run_log: term.run_log() };
        let ages = Ages::of(run.dir, run.run_log, retention.grace).await?;
        let doomed = decide(run, retention, &ages, &mut known).await?;
        if doomed.is_empty() {
            break (doomed, ages);
        }
        let boundary = Record::Collected { manifests: doomed.checkpoints.clone() };
        if term.append_next(boundary).await?.is_some() {
            break (doomed, ages);
        }
        // An entry of ours came first, perhaps a checkpoint: what stays is decided with it in view.
    };
    term.known = known;
    for UnreadableManifest { why, .. } in &doomed.unreadable {
        tracing::warn!(run = term.run().uri(), why, "a checkpoint's manifest cannot be read; its packs stay");
    }
    // Manifests first: one that is there then still has its packs, for whoever looks.
    let packs = doomed.packs.iter().map(|(hash, _)| pack_name(hash));
    let names: Vec<String> = doomed.manifests.iter().cloned().chain(packs).collect();
    for batch in names.chunks(BATCH) {
        term.check().await?;
        folder.delete(batch).await?;
    }
    Ok(Collected {
        packs: doomed.packs.len(),
        bytes: doomed.packs.iter().map(|(_, bytes)| bytes).sum(),
        checkpoints: doomed.checkpoints,
        manifests: doomed.manifests,
        unreadable: doomed.unreadable,
        temp_files: temp_files::sweep(&folder, &ages).await?,
    })
}

/// What [`collect`] would delete from a run with this log. Nothing is written, and no term is needed.
pub async fn collectable(
    run: &RunDir,
    run_log: &RunLog,
    retention: &Retention,
) -> Result<Collected, StoreError> {
    let ages = Ages::of(run, run_log, retention.grace).await?;
    let doomed = decide(Logged { dir: run, run_log }, retention, &ages, &mut Known::new()).await?;
    Ok(Collected {
        packs: doomed.packs.len(),
        bytes: doomed.packs.iter().map(|(_, bytes)| bytes).sum(),
        checkpoints: doomed.checkpoints,
        manifests: doomed.manifests,
        unreadable: doomed.unreadable,
        temp_files: 0,
    })
}

impl Doomed {
    fn is_empty(&self) -> bool {
        self.checkpoints.is_empty() && self.manifests.is_empty() && self.packs.is_empty()
    }
}

type Listing = HashMap<Hash, ObjectMeta>;

/// The packs that a manifest names, and their lengths.
type Packs = Vec<(Hash, u64)>;

/// What manifests say, by their names: it never changes.
pub(crate) type Known = HashMap<String, Packs>;

/// A run and its log.
#[derive(Clone, Copy)]
struct Logged<'a> {
    dir: &'a RunDir,
    run_log: &'a RunLog,
}

async fn decide(
    run: Logged<'_>,
    retention: &Retention,
    ages: &Ages,
    known: &mut Known,
) -> Result<Doomed, StoreError> {
    let listing = run.dir.folder().list("packs").await?;
    let packs: Listing =
        listing.into_iter().filter_map(|object| Some((pack_hash(&object.name)?, object.meta))).collect();
    let mut kept = keep(run, retention, &packs, known).await?;
    kept.packs.extend(&retention.in_flight);

    let (manifests, collected) = dead_manifests(run, &kept.removed, ages).await?;
    let mut named = HashSet::new();
    for name in &collected {
        match run.dir.manifest(name).await {
            Ok(manifest) => named.extend(manifest.packs.iter().map(|pack| pack.hash)),
            Err(ReadManifestError::Store(error)) => return Err(error),
            // A damaged one cannot say what it held; its packs go by their age.
            Err(_) => {}
        }
    }
    let all_known = kept.unreadable.is_empty();
    let goes = |(hash, meta): &(&Hash, &ObjectMeta)| {
        all_known && !kept.packs.contains(hash) && (named.contains(hash) || ages.is_past_grace(meta))
    };
    let mut packs: Vec<(Hash, u64)> =
        packs.iter().filter(goes).map(|(hash, meta)| (*hash, meta.size)).collect();
    packs.sort_unstable();
    Ok(Doomed { checkpoints: kept.removed, manifests, packs, unreadable: kept.unreadable })
}

/// What stays, and which committed checkpoints do not.
#[derive(Default)]
struct Kept {
    packs: HashSet<Hash>,
    removed: Vec<String>,
    unreadable: Vec<UnreadableManifest>,
}

/// What became of a checkpoint, as far as can be told without reading its packs.
enum Verdict {
    /// All its packs are there in their right lengths.
    Whole(Packs),
    /// Some are not.
    Lacking(Packs),
    /// Its manifest cannot be read.
    Unreadable(UnreadableManifest),
}

/// Goes from the newest checkpoint back until enough whole ones are kept, then through the lengths that keep one each;
/// the rest is removed.
async fn keep(
    run: Logged<'_>,
    retention: &Retention,
    packs: &Listing,
    known: &mut Known,
) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    let checkpoints = run.run_log.all_checkpoints();
    let mut older = checkpoints.as_slice();
    let mut lengths = HashSet::new();
    let mut known_on = Known::new();
    let mut whole = 0;
    while whole < retention.last.max(1)
        && let Some((checkpoint, rest)) = older.split_last()
    {
        older = rest;
        let good = checkpoint.quarantined.is_none();
        match judge(run, checkpoint, packs).await? {
            Verdict::Whole(packs) => {
                whole += u32::from(good);
                kept.packs.extend(packs.iter().map(|(hash, _)| hash));
            }
            Verdict::Lacking(packs) => kept.packs.extend(packs.iter().map(|(hash, _)| hash)),
            Verdict::Unreadable(unreadable) if good => kept.unreadable.push(unreadable),
            Verdict::Unreadable(_) => {}
        }
    }
    for checkpoint in older {
        let claim = retention.claims(checkpoint, run.run_log);
        let claim = claim.filter(|length| checkpoint.quarantined.is_none() && !lengths.contains(length));
        let Some(length) = claim else {
            kept.removed.push(checkpoint.manifest.clone());
            continue;
        };
        match judge_old(run, checkpoint, packs, known).await? {
            Verdict::Whole(named) => {
                lengths.insert(length);
                kept.packs.extend(named.iter().map(|(hash, _)| hash));
                known_on.insert(checkpoint.manifest.clone(), named);
            }
            // It may be whole in a replica. It stays, and so does the next one, until it is quarantined.
            Verdict::Lacking(named) => kept.packs.extend(named.iter().map(|(hash, _)| hash)),
            Verdict::Unreadable(unreadable) => kept.unreadable.push(unreadable),
        }
    }
    *known = known_on;
    Ok(kept)
}

/// Judges a checkpoint that is kept for its length. There may be hundreds of such, and they are looked at after each
/// commit: each manifest is read once, and from then on its packs are looked for alone.
async fn judge_old(
    run: Logged<'_>,
    checkpoint: &CheckpointInfo,
    listed: &Listing,
    known: &mut Known,
) -> Result<Verdict, StoreError> {
    match known.remove(&checkpoint.manifest) {
        Some(packs)
            if packs
                .iter()
                .all(|(hash, length)| listed.get(hash).is_some_and(|meta| meta.size == *length)) =>
        {
            Ok(Verdict::Whole(packs))
        }
        _ => judge(run, checkpoint, listed).await,
    }
}

/// Reads a checkpoint's manifest and looks for its packs. What the listing lacks is looked up, since listings may lag.
async fn judge(
    run: Logged<'_>,
    checkpoint: &CheckpointInfo,
    listed: &Listing,
) -> Result<Verdict, StoreError> {
    let manifest = match run.dir.manifest(&checkpoint.manifest).await {
        Ok(manifest) => manifest,
        Err(ReadManifestError::Store(error)) => return Err(error),
        Err(error) => {
            let (manifest, why, is_damaged) =
                (checkpoint.manifest.clone(), error.to_string(), error.is_damage());
            return Ok(Verdict::Unreadable(UnreadableManifest { manifest, why, is_damaged }));
        }
    };
    let packs = manifest.packs.iter().map(|pack| (pack.hash, pack.length)).collect();
    for pack in &manifest.packs {
        let length = match listed.get(&pack.hash) {
            Some(meta) => Some(meta.size),
            None => run.dir.folder().head(&pack_name(&pack.hash)).await?.map(|meta| meta.size),
        };
        if length != Some(pack.length) {
            tracing::warn!(step = manifest.step, pack = %pack.hash, "a checkpoint lacks a pack and does not count");
            return Ok(Verdict::Lacking(packs));
        }
    }
    Ok(Verdict::Whole(packs))
}

/// The manifests in the store that no longer name a checkpoint: recorded as collected, about to be, or left behind by a
/// commit that never reached the log; and again the collected ones alone.
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
