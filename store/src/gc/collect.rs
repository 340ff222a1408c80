//! Collection: the protocol by which objects are deleted.
//!
//! Only the coordinator whose term is in force deletes. In this order it
//!
//! 1. reads the end of the log, and stops if it is fenced,
//! 2. decides what to delete,
//! 3. records in the log which checkpoints go,
//! 4. deletes manifests and packs in batches, and reads the end of the log again before each batch.
//!
//! A crash in between leaves objects that nothing refers to; the next collection finds them.
//!
//! # Why no save in flight loses a pack
//! A pack is deleted only if no kept manifest names it, the caller does not name it as in flight, and it was named by a
//! checkpoint that goes or is older than [`Retention::grace`]. So a pack that a save *put* stays for the grace at least,
//! which must be longer than a save takes. A pack that a save *found* in the store and did not put may be deleted. Then
//! [`commit`](crate::commit), which looks every pack up right before it appends to the log, fails, and the slice is saved
//! again. Commit and collect both need `&mut Term`, so no deletion comes between the look-up and the entry.
//!
//! # Why it is enough to look at new checkpoints
//! A [`Collector`] remembers the packs of all kept checkpoints. Only this term appends to the log, so the entries
//! since the last collection say which checkpoints came; after any other change, and while a kept checkpoint lacks a
//! pack, it looks at everything again.
//! A pack is deleted then only if a removed checkpoint names it and no kept one does. Before a checkpoint is removed, the
//! store is asked for each pack of the checkpoints in whose favour it is removed: the newest ones, and the one that is kept
//! for its interval. If one of these lacks a pack, everything is looked at again.
//!
//! # Why a late commit cannot bring back what was collected
//! Before anything is deleted, an entry says so, even if no checkpoint goes: a *boundary*. A commit is decided by the log
//! up to its own entry's number, and is written under that number. A commit that was given up and is still on its way, or
//! one of a coordinator that was paused, therefore either lands before the boundary, and the collection is decided again
//! with it in view; or it finds the boundary under its number, looks its packs up again, or learns that it is fenced.
//!
//! One case remains: a coordinator is fenced *between* its last look at the log and a deletion that it has already sent,
//! and its successor commits a pack of the same content in that moment. Stores have no conditional delete, so this cannot
//! be excluded. Batches are small to keep the interval short, a restore notices (the hash), and a checkpoint that lost a
//! pack does not count among those that are kept.

use std::time::SystemTime;

use super::{
    age::Ages,
    kept::Kept,
    mark::{Deletions, Logged, UnreadableManifest, decide_all, decide_new},
    retention::{KeepEvery, Retention},
};
use crate::{
    checkpoint::pack_name,
    log::{AppendError, Record, RunDir, RunLog, Term},
    object::{StoreError, temp_files},
};
use futures::future::BoxFuture;

/// Objects deleted between two reads of the log's end.
const BATCH: usize = 100;

/// The folders of a run in which objects are put.
const FOLDERS: [&str; 4] = ["log", "manifests", "packs", "output"];

/// What a collection deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The checkpoints that were given up, by their manifests' names.
    pub checkpoints: Vec<String>,
    /// The names of the deleted manifests. Some may never have been committed.
    pub manifests: Vec<String>,
    /// The number of deleted packs.
    pub packs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Kept checkpoints whose manifests cannot be read. Their packs are not known, so no pack was deleted. Quarantine them,
    /// or heal them from a replica.
    pub unreadable: Vec<UnreadableManifest>,
    /// Temp files deleted from a local folder: a program was killed in the middle of a put.
    pub temp_files: usize,
}

/// A collection that failed. What it deleted until then was not needed; the next one continues.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// This coordinator is fenced, or the log cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes what `retention` does not keep: one collection by a new [`Collector`].
pub fn collect<'a>(
    term: &'a mut Term,
    retention: &'a Retention,
) -> BoxFuture<'a, Result<Collected, CollectError>> {
    Box::pin(async move { Collector::default().collect(term, retention).await })
}

/// Collects one run again and again, e.g. after each commit.
///
/// The first collection of a term looks at every object in the store. Later ones look only at the checkpoints committed
/// since and at those that they replace, so their cost does not grow with the number of kept checkpoints. All objects are
/// looked at again once each [`Retention::grace`]: objects that no checkpoint names, e.g. the packs of a save that died,
/// are deleted then, after one to two graces.
#[derive(Debug, Default)]
pub struct Collector {
    known: Option<Known>,
}

/// What the last successful collection left.
#[derive(Debug)]
struct Known {
    /// The term whose log it was decided by.
    token: String,
    /// The retention that it was decided by.
    last: u32,
    every: Option<KeepEvery>,
    /// When all objects were looked at, by the store's clock.
    listed_at: SystemTime,
    kept: Kept,
    /// The number of the first log entry that is not taken into account in `kept`.
    next: u64,
}

impl Known {
    /// Whether a collection may rely on it.
    fn holds(&self, term: &Term, retention: &Retention, ages: &Ages) -> bool {
        self.token == term.token()
            // A save may bring the pack back, and then another checkpoint counts.
            && !self.kept.is_lacking
            && (self.last, self.every) == (retention.last, retention.every)
            && !ages.is_grace_over_since(self.listed_at)
    }
}

/// A decision, and what it leaves if it is carried out.
struct Decided {
    deletions: Deletions,
    /// `None` if a kept manifest cannot be read: the next collection must look at everything again.
    known: Option<Known>,
    /// Every object was looked at.
    is_full: bool,
    ages: Ages,
}

impl Collector {
    /// The checkpoints that the last collection under this term kept, unless it found that one of them lacks a pack.
    pub(crate) fn kept_whole(&self, term: &Term) -> Option<&Kept> {
        let known = self.known.as_ref().filter(|known| known.token == term.token());
        known.map(|known| &known.kept).filter(|kept| !kept.is_lacking)
    }

    /// Deletes what `retention` does not keep.
    ///
    /// The newest complete checkpoints are kept, and the first complete one of each interval of [`Retention::every`]. A
    /// checkpoint that lacks packs does not count, so a checkpoint that can be restored is never deleted in favour of one
    /// that cannot.
    ///
    /// A checkpoint that should be kept and whose manifest cannot be read does not count either. Until it is deleted, healed
    /// or quarantined no pack is deleted, since any pack might be its own.
    pub async fn collect(
        &mut self,
        term: &mut Term,
        retention: &Retention,
    ) -> Result<Collected, CollectError> {
        term.check().await?;
        let folder = term.run().folder().clone();
        // Put back only after success: what a failed collection recorded and did not delete, only a full one finds.
        let mut known = self.known.take();
        let decided = loop {
            let decided = decide(term, retention, known).await?;
            if decided.deletions.is_empty() {
                break decided;
            }
            let boundary = Record::Collected { manifests: decided.deletions.checkpoints.clone() };
            if term.append_next(boundary).await?.is_some() {
                break decided;
            }
            // An earlier entry of this term landed, perhaps a checkpoint: decide again with it in view.
            known = decided.known;
        };
        // Entries that land later are not taken into account yet.
        let next = term.run_log().next_number();
        let Decided { deletions, known, is_full, ages } = decided;
        for UnreadableManifest { why, .. } in &deletions.unreadable {
            tracing::warn!(
                run = term.run().uri(),
                why,
                "a checkpoint's manifest cannot be read; its packs stay"
            );
        }
        // Manifests first: as long as a manifest exists, so do its packs.
        let packs = deletions.packs.iter().map(|(hash, _)| pack_name(hash));
        let names: Vec<String> = deletions.manifests.iter().cloned().chain(packs).collect();
        for batch in names.chunks(BATCH) {
            term.check().await?;
            folder.delete(batch).await?;
        }
        let temp_files = if is_full {
            let is_old = |modified| ages.is_file_past_grace(modified);
            temp_files::sweep(&folder, &FOLDERS, is_old).await?
        } else {
            0
        };
        self.known = known.map(|mut known| {
            for manifest in &deletions.checkpoints {
                known.kept.remove(manifest);
            }
            known.next = next;
            known
        });
        Ok(deletions.report(temp_files))
    }
}

/// Decides by what is known, if that is enough, or else by all objects in the store.
async fn decide(term: &Term, retention: &Retention, known: Option<Known>) -> Result<Decided, CollectError> {
    let run = Logged { dir: term.run(), run_log: term.run_log() };
    let ages = Ages::of(run.dir, run.run_log, retention.grace).await?;
    let before = match known {
        Some(mut known) if known.holds(term, retention, &ages) => {
            let new = run.run_log.entries().get(known.next as usize..).unwrap_or_default();
            if let Some(deletions) = decide_new(run, new, retention, &mut known.kept).await? {
                known.next = run.run_log.next_number();
                return Ok(Decided { deletions, known: Some(known), is_full: false, ages });
            }
            known.kept
        }
        Some(known) => known.kept,
        None => Kept::default(),
    };
    let (deletions, kept) = decide_all(run, retention, &ages, &before).await?;
    let known = ages.now().filter(|_| deletions.unreadable.is_empty()).map(|listed_at| Known {
        token: term.token().to_owned(),
        last: retention.last,
        every: retention.every,
        listed_at,
        kept,
        next: run.run_log.next_number(),
    });
    Ok(Decided { deletions, known, is_full: true, ages })
}

/// What [`collect`] would delete from a run with this log. Nothing is written, and no term is needed.
pub fn collectable<'a>(
    run: &'a RunDir,
    run_log: &'a RunLog,
    retention: &'a Retention,
) -> BoxFuture<'a, Result<Collected, StoreError>> {
    Box::pin(async move {
        let ages = Ages::of(run, run_log, retention.grace).await?;
        let run = Logged { dir: run, run_log };
        let (deletions, _) = decide_all(run, retention, &ages, &Kept::default()).await?;
        Ok(deletions.report(0))
    })
}

impl Deletions {
    fn report(self, temp_files: usize) -> Collected {
        Collected {
            packs: self.packs.len(),
            bytes: self.packs.iter().map(|(_, bytes)| bytes).sum(),
            checkpoints: self.checkpoints,
            manifests: self.manifests,
            unreadable: self.unreadable,
            temp_files,
        }
    }
}
