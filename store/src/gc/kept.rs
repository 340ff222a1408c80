//! What a collector knows of the checkpoints that are kept: so that the collection after a commit looks at the new
//! checkpoint and at the few that it may replace, and not at all of them.

use std::collections::{HashMap, HashSet};

use whimbrel_state::Hash;

/// The packs that a manifest names, and their lengths.
pub(crate) type Packs = Vec<(Hash, u64)>;

/// The kept checkpoints and their packs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// The packs of each kept checkpoint, by its manifest.
    packs: HashMap<String, Packs>,
    /// How many kept checkpoints name a pack.
    references: HashMap<Hash, usize>,
    /// One of them lacks a pack.
    pub(super) is_lacking: bool,
    /// Checkpoints that are kept although they are not among the newest.
    pub(super) settled: HashSet<String>,
    /// The complete checkpoint that is kept for each interval of [`Retention::every`](super::Retention::every).
    pub(super) by_interval: HashMap<u64, String>,
}

impl Kept {
    /// Adds a checkpoint.
    pub(super) fn add(&mut self, manifest: &str, packs: Packs) {
        self.remove(manifest);
        for (hash, _) in &packs {
            *self.references.entry(*hash).or_default() += 1;
        }
        self.packs.insert(manifest.to_owned(), packs);
    }

    /// Adds a checkpoint that lacks a pack.
    pub(super) fn add_lacking(&mut self, manifest: &str, packs: Packs) {
        self.is_lacking = true;
        self.add(manifest, packs);
    }

    /// Removes a checkpoint. Returns its packs.
    pub(super) fn remove(&mut self, manifest: &str) -> Option<Packs> {
        let packs = self.packs.remove(manifest)?;
        for (hash, _) in &packs {
            if let Some(count) = self.references.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    self.references.remove(hash);
                }
            }
        }
        Some(packs)
    }

    /// The packs of a kept checkpoint.
    pub(crate) fn packs_of(&self, manifest: &str) -> Option<&Packs> {
        self.packs.get(manifest)
    }

    /// Whether a kept checkpoint names a pack.
    pub(crate) fn names(&self, pack: &Hash) -> bool {
        self.references.contains_key(pack)
    }

    /// The packs that only the checkpoints `removed` name.
    pub(super) fn only_of(&self, removed: &[String]) -> Packs {
        let mut named: HashMap<Hash, (usize, u64)> = HashMap::new();
        for (hash, length) in removed.iter().filter_map(|manifest| self.packs.get(manifest)).flatten() {
            named.entry(*hash).or_insert((0, *length)).0 += 1;
        }
        let is_only_theirs =
            |(hash, (count, _)): &(&Hash, &(usize, u64))| self.references.get(hash) == Some(count);
        named.iter().filter(is_only_theirs).map(|(hash, (_, length))| (*hash, *length)).collect()
    }
}
