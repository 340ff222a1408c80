//! Retention: deleting checkpoints that are no longer wanted, and packs that nothing refers to.
//!
//! Only the coordinator in office deletes, in this order: it reads the end of the log (am I fenced?), decides, records
//! in the log which checkpoints go, and only then deletes manifests and packs, reading the end of the log again before
//! each batch. A crash in between leaves objects that nothing refers to, and the next collection finds them.
//!
//! # Why no save under way loses a pack
//! A pack goes only if no kept manifest names it, the caller does not name it as in flight, and either a checkpoint that
//! goes named it or it is older than [`Retention::grace`]. So a pack that a save *put* stays for the grace at least,
//! which must be longer than a save takes. A pack that a save *found there* and did not put may go: then
//! [`commit`](crate::commit), which looks every pack up right before it appends to the log, refuses, and the slice is
//! saved again. Commit and collect both need `&mut Office`, so no deletion comes between look-up and entry.
//!
//! What remains is a coordinator that is fenced *between* its last look at the log and a deletion it has already sent
//! off, against a successor that commits a pack of the very same content in that moment. Stores have no conditional
//! delete, so this cannot be excluded; batches are small to keep it narrow, a restore notices (the hash), and a
//! checkpoint that lost a pack does not count among those that are kept.
//!
//! Ages are differences of the store's own times, the log's last entry standing for now: no clock of ours is involved.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use object_store::ObjectMeta;
use whimbrel_state::{Hash, Manifest};

use crate::{
    checkpoint::ReadManifestError,
    entry::{self, Record},
    folder::{Folder, Listed, StoreError},
    office::{AppendError, Office},
    pack,
};

/// Objects deleted between two looks at the log.
const BATCH: usize = 100;

/// What to keep.
#[derive(Clone, Debug)]
pub struct Retention {
    /// How many whole checkpoints to keep, the newest ones; one is kept at least.
    pub keep: u32,
    /// How long a pack that no checkpoint names stays, since it may belong to a save under way.
    pub grace: Duration,
    /// Packs of saves under way, as far as they are known: they stay whatever their age.
    pub in_flight: Vec<Hash>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: 3, grace: Duration::from_secs(3600), in_flight: Vec::new() }
    }
}

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The manifests' names.
    pub manifests: Vec<String>,
    /// The number of packs.
    pub packs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A collection that was given up. What it deleted until then was not needed, and the next one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A checkpoint that should stay cannot be read, so its packs are not known.
    #[error("nothing is collected while a checkpoint that should be kept cannot be read; quarantine it")]
    Unreadable(#[source] ReadManifestError),
    /// This coordinator is fenced, or the log cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes what `retention` does not keep.
///
/// Checkpoints older than the `keep`th whole one go, quarantined ones among them; a checkpoint whose packs are not all
/// there does not count, so what can be restored is never deleted in favour of what cannot.
pub async fn collect(office: &mut Office, retention: &Retention) -> Result<Collected, CollectError> {
    office.check().await?;
    let folder = office.run().folder().clone();
    let packs: HashMap<Hash, ObjectMeta> = folder
        .list("packs")
        .await?
        .into_iter()
        .filter_map(|object| Some((pack::hash(&object.name)?, object.meta)))
        .collect();

    let mut kept = decide(office, retention, &packs).await?;
    kept.packs.extend(&retention.in_flight);
    if !kept.removed.is_empty() {
        office.append(Record::Collected { manifests: kept.removed }).await?;
    }

    let ages = Ages::of(&folder, office.history().next_number().saturating_sub(1), retention.grace).await?;
    let dead = dead_manifests(office, &ages).await?;
    let mut doomed = HashSet::new();
    for name in &dead {
        match office.run().manifest(name).await {
            Ok(manifest) => doomed.extend(manifest.packs.iter().map(|pack| pack.hash)),
            Err(ReadManifestError::Store(error)) => return Err(error.into()),
            // A damaged one cannot say what it held; its packs go by their age.
            Err(_) => {}
        }
    }

    let swept: Vec<(&Hash, &ObjectMeta)> = packs
        .iter()
        .filter(|(hash, meta)| {
            !kept.packs.contains(hash) && (doomed.contains(hash) || ages.is_past_grace(meta))
        })
        .collect();
    let collected = Collected {
        packs: swept.len(),
        bytes: swept.iter().map(|(_, meta)| meta.size).sum(),
        manifests: dead.clone(),
    };
    // Manifests first: one that is there then still has its packs, for whoever looks.
    let names: Vec<String> =
        dead.into_iter().chain(swept.into_iter().map(|(hash, _)| pack::name(hash))).collect();
    for batch in names.chunks(BATCH) {
        office.check().await?;
        folder.delete(batch).await?;
    }
    Ok(collected)
}

/// What stays, and which committed checkpoints do not.
#[derive(Default)]
struct Kept {
    packs: HashSet<Hash>,
    removed: Vec<String>,
}

/// Goes from the newest checkpoint back until enough whole ones are kept; the rest is removed.
async fn decide(
    office: &Office,
    retention: &Retention,
    packs: &HashMap<Hash, ObjectMeta>,
) -> Result<Kept, CollectError> {
    let mut kept = Kept::default();
    let mut whole = 0;
    for checkpoint in office.history().all_checkpoints().into_iter().rev() {
        if whole >= retention.keep.max(1) {
            kept.removed.push(checkpoint.manifest);
            continue;
        }
        let quarantined = checkpoint.quarantined.is_some();
        match office.run().manifest(&checkpoint.manifest).await {
            Ok(manifest) => {
                kept.packs.extend(manifest.packs.iter().map(|pack| pack.hash));
                if !quarantined && is_whole(office, &manifest, packs).await? {
                    whole += 1;
                }
            }
            Err(error) if error.is_damage() && quarantined => {}
            Err(ReadManifestError::Store(error)) => return Err(error.into()),
            Err(error) => return Err(CollectError::Unreadable(error)),
        }
    }
    kept.removed.reverse();
    Ok(kept)
}

/// Whether all packs of a checkpoint are there in their right lengths. What the listing lacks is looked up, since
/// listings may lag.
async fn is_whole(
    office: &Office,
    manifest: &Manifest,
    listed: &HashMap<Hash, ObjectMeta>,
) -> Result<bool, StoreError> {
    for pack in &manifest.packs {
        let length = match listed.get(&pack.hash) {
            Some(meta) => Some(meta.size),
            None => office.run().folder().head(&pack::name(&pack.hash)).await?.map(|meta| meta.size),
        };
        if length != Some(pack.length) {
            tracing::warn!(step = manifest.step, pack = %pack.hash, "a checkpoint lacks a pack and does not count");
            return Ok(false);
        }
    }
    Ok(true)
}

/// The manifests in the store that no longer name a checkpoint: recorded as collected, or left behind by a commit that
/// never reached the log.
async fn dead_manifests(office: &Office, ages: &Ages) -> Result<Vec<String>, StoreError> {
    let history = office.history();
    let alive: HashSet<String> =
        history.all_checkpoints().into_iter().map(|checkpoint| checkpoint.manifest).collect();
    let collected: HashSet<&String> = history
        .entries()
        .iter()
        .filter_map(|entry| match &entry.record {
            Record::Collected { manifests } => Some(manifests),
            _ => None,
        })
        .flatten()
        .collect();
    let is_dead = |object: &Listed| {
        !alive.contains(&object.name)
            && (collected.contains(&object.name) || ages.is_past_grace(&object.meta))
    };
    let listing = office.run().folder().list("manifests").await?;
    let mut dead: Vec<String> = listing.into_iter().filter(is_dead).map(|object| object.name).collect();
    dead.sort();
    Ok(dead)
}

/// Tells how old objects are, by the store's clock.
struct Ages {
    now: Option<ObjectMeta>,
    grace: Duration,
}

impl Ages {
    /// Entry `last` of the log stands for now: it is at most too old, which keeps more.
    async fn of(folder: &Folder, last: u64, grace: Duration) -> Result<Self, StoreError> {
        Ok(Self { now: folder.head(&entry::name(last)).await?, grace })
    }

    fn is_past_grace(&self, object: &ObjectMeta) -> bool {
        let age = self.now.as_ref().map(|now| now.last_modified - object.last_modified);
        age.and_then(|age| age.to_std().ok()).is_some_and(|age| age >= self.grace)
    }
}
