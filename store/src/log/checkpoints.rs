//! The checkpoints that a run log names, kept up to date entry by entry: an append must not cost time that grows with the
//! number of checkpoints.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use whimbrel_state::Hash;

use super::entry::{Entry, Origin, Record};

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointInfo {
    /// Steps applied to its state.
    pub step: u64,
    /// The manifest's name in the run's directory, for [`RunDir::manifest`](crate::RunDir::manifest).
    pub manifest: String,
    /// When it was committed, by the clock of the coordinator that made it.
    pub time: DateTime<Utc>,
    /// The original commit: in this directory, or in the one that this is a copy of.
    pub origin: Origin,
    /// Bytes of its packs.
    pub bytes: u64,
    /// The digest of its state, if it was computed.
    pub state: Option<Hash>,
    /// Why it must not be used, if it is damaged.
    pub quarantined: Option<String>,
}

/// The committed checkpoints of a log that are not collected.
///
/// A checkpoint that is committed again is usable again, and is as new as its newest commit: a run that continues from an
/// earlier state, here or in a copy, may compute the same state again. The order is that of the original commits, not that
/// in which copies were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Checkpoints {
    in_order: BTreeMap<Order, CheckpointInfo>,
    by_manifest: HashMap<String, Order>,
}

/// The position of a checkpoint: the epoch and number of the entry of its original commit. Two of the same origin, which
/// only a damaged log has, are in the order of this log's own entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    epoch: u64,
    entry: u64,
    here: u64,
}

impl Checkpoints {
    /// Takes the next entry of the log into account.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match &entry.record {
            Record::Checkpoint { step, manifest, bytes, state, origin } => {
                let here = Origin { epoch: entry.epoch, entry: entry.number, time: entry.time };
                // A copied commit may be older than the one known.
                let origin = origin.unwrap_or(here);
                let origin = self.remove(manifest).map_or(origin, |before| before.origin.max(origin));
                let order = Order { epoch: origin.epoch, entry: origin.entry, here: entry.number };
                self.by_manifest.insert(manifest.clone(), order);
                self.in_order.insert(
                    order,
                    CheckpointInfo {
                        step: *step,
                        manifest: manifest.clone(),
                        time: origin.time,
                        origin,
                        bytes: *bytes,
                        state: *state,
                        quarantined: None,
                    },
                );
            }
            Record::Quarantined { manifest, reason } => {
                let order = self.by_manifest.get(manifest);
                if let Some(checkpoint) = order.and_then(|order| self.in_order.get_mut(order)) {
                    checkpoint.quarantined = Some(reason.clone());
                }
            }
            Record::Collected { manifests } => {
                for manifest in manifests {
                    self.remove(manifest);
                }
            }
            _ => {}
        }
    }

    fn remove(&mut self, manifest: &str) -> Option<CheckpointInfo> {
        let order = self.by_manifest.remove(manifest)?;
        self.in_order.remove(&order)
    }

    /// The one with this manifest.
    pub(super) fn get(&self, manifest: &str) -> Option<&CheckpointInfo> {
        self.in_order.get(self.by_manifest.get(manifest)?)
    }

    /// All of them, newest last.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &CheckpointInfo> {
        self.in_order.values()
    }
}
