//! Where a run's checkpoints are read from: its directory, and copies of it in other stores.
//!
//! What is missing or damaged in the first is read from the next, and put back into the first, so that it is whole
//! again for whoever comes after. Putting back is harmless whoever holds the run's epoch: packs and manifests are named
//! by their content.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt, stream};
use object_store::PutMode;
use whimbrel_state::{Hash, Manifest, Pack};

use crate::{
    checkpoint::{
        block_reader::{BadPack, Block, BlockReader, Unread, fetch},
        commit::ReadManifestError,
        pack,
        save::Limits,
    },
    log::run_dir::RunDir,
    object::folder::StoreError,
};

/// A run's directory and its replicas, in the order in which they are asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sources {
    primary: RunDir,
    replicas: Vec<RunDir>,
}

impl From<RunDir> for Sources {
    fn from(primary: RunDir) -> Self {
        Self::new(primary)
    }
}

impl Sources {
    /// The run's directory alone.
    pub fn new(primary: RunDir) -> Self {
        Self { primary, replicas: Vec::new() }
    }

    /// And a copy of it, asked after those before.
    pub fn with_replica(mut self, replica: RunDir) -> Self {
        self.replicas.push(replica);
        self
    }

    /// The run's directory: what is missing there is put back.
    pub fn primary(&self) -> &RunDir {
        &self.primary
    }

    /// All of them, the primary first.
    pub fn all(&self) -> impl Iterator<Item = &RunDir> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// Reads a manifest by its name from the first source that has it undamaged, and puts it back into the primary
    /// where that one's is missing or damaged. If none has it: if one that might have it did not answer, its error, else
    /// the primary's.
    pub async fn manifest(&self, name: &str) -> Result<Manifest, ReadManifestError> {
        let error = match self.primary.manifest(name).await {
            Ok(manifest) => return Ok(manifest),
            Err(error) => error,
        };
        let mut silent = None;
        for replica in &self.replicas {
            match replica.manifest(name).await {
                Ok(manifest) => {
                    let (run, found_in) = (self.primary.uri(), replica.uri());
                    tracing::warn!(run, name, %error, found_in, "a manifest is read from a replica");
                    if error.is_to_be_put_back() {
                        self.put_back_manifest(name, replica).await;
                    }
                    return Ok(manifest);
                }
                Err(other) => {
                    tracing::warn!(replica = replica.uri(), name, error = %other, "nor is it here");
                    if !other.is_damage() {
                        silent.get_or_insert(other);
                    }
                }
            }
        }
        Err(if error.is_damage() { silent.unwrap_or(error) } else { error })
    }

    /// Failing is no failure of who reads: it is said and left.
    async fn put_back_manifest(&self, name: &str, replica: &RunDir) {
        let put = async {
            let bytes = replica.manifest_bytes(name).await?;
            Ok::<_, ReadManifestError>(self.primary.folder().replace(name, bytes).await?)
        };
        if let Err(error) = put.await {
            tracing::warn!(run = self.primary.uri(), name, %error, "a manifest could not be put back");
        }
    }

    /// Puts packs back into the primary that were found to be missing or damaged there; returns those that are whole
    /// again. Failing is no failure of who reads: it is said and left.
    pub(crate) async fn heal(&self, findings: &Findings, limits: &Limits) -> Vec<Hash> {
        let packs = std::mem::take(&mut *findings.bad());
        let healing = packs.into_values().map(|(pack, bad)| async move {
            let hash = pack.hash;
            self.put_back(&pack, &bad, limits).await.then_some(hash)
        });
        let healed = stream::iter(healing).buffer_unordered(limits.concurrency.clamp(1, HEALED_AT_A_TIME));
        healed.filter_map(std::future::ready).collect().await
    }

    async fn put_back(&self, wanted: &Pack, bad: &BadPack, limits: &Limits) -> bool {
        let (folder, name) = (self.primary.folder(), pack::name(&wanted.hash));
        for replica in &self.replicas {
            let Ok(Ok(body)) = fetch(replica.folder(), wanted).await else { continue };
            // What is missing may have been put back by another reader since: it is not to be put over.
            let mode = match bad {
                BadPack::Missing { .. } => PutMode::Create,
                BadPack::Damaged { .. } | BadPack::WrongLength { .. } => PutMode::Overwrite,
            };
            match folder.put_pack(&name, body, mode, limits).await {
                Ok(_) => return true,
                Err(error) => {
                    tracing::warn!(object = folder.uri_of(&name), %error, "a pack could not be put back");
                    return false;
                }
            }
        }
        false
    }
}

/// Packs put back at a time, each of them in memory.
const HEALED_AT_A_TIME: usize = 4;

/// What a read finds about its sources on the way.
#[derive(Debug)]
pub(crate) struct Findings {
    /// For each source, whether it failed to answer: it is asked last from then on.
    silent: Vec<AtomicBool>,
    /// Packs that are bad in the primary and were read elsewhere.
    bad: Mutex<BTreeMap<Hash, (Arc<Pack>, BadPack)>>,
}

impl Findings {
    pub(crate) fn new(sources: &Sources) -> Arc<Self> {
        let silent = sources.all().map(|_| AtomicBool::new(false)).collect();
        Arc::new(Self { silent, bad: Mutex::default() })
    }

    fn bad(&self) -> MutexGuard<'_, BTreeMap<Hash, (Arc<Pack>, BadPack)>> {
        // Whoever panicked while it held this had finished its insertion or not begun it.
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sources by their place, those that did not answer last.
    fn order(&self) -> VecDeque<usize> {
        let is_silent = |source: &usize| self.silent[*source].load(Ordering::Relaxed);
        let (silent, answering): (Vec<usize>, Vec<usize>) = (0..self.silent.len()).partition(is_silent);
        answering.into_iter().chain(silent).collect()
    }
}

/// Reads consecutive blocks of a pack from the first source that has them, going on with the next one where a source
/// fails.
#[derive(Debug)]
pub(crate) struct SourceReader {
    sources: Sources,
    findings: Arc<Findings>,
    pack: Arc<Pack>,
    wanted: Range<u64>,
    upper: usize,
    /// Sources that were not asked yet.
    to_ask: VecDeque<usize>,
    reader: Option<(usize, BlockReader)>,
    /// What the sources asked said, the first of each kind.
    bad: Option<BadPack>,
    silent: Option<StoreError>,
}

impl SourceReader {
    pub(crate) fn new(
        sources: &Sources,
        findings: &Arc<Findings>,
        pack: &Arc<Pack>,
        wanted: Range<u64>,
        upper: usize,
    ) -> Self {
        let (sources, findings, pack) = (sources.clone(), Arc::clone(findings), Arc::clone(pack));
        let to_ask = findings.order();
        Self { sources, findings, pack, wanted, upper, to_ask, reader: None, bad: None, silent: None }
    }

    /// The next block; `None` after the last. If no source has it: if one that might have it did not answer, its error,
    /// else what is wrong with the first.
    pub(crate) async fn next(&mut self) -> Result<Option<Block>, Unread> {
        loop {
            let (at, reader) = match &mut self.reader {
                Some((at, reader)) => (*at, reader),
                None => match self.to_ask.pop_front() {
                    Some(at) => self.ask(at)?,
                    None => return Err(self.in_vain()),
                },
            };
            match reader.next().await {
                Ok(Some(block)) => {
                    self.wanted.start = block.index + 1;
                    return Ok(Some(block));
                }
                Ok(None) => return Ok(None),
                Err(Unread::Bad(bad)) => {
                    let found = (Arc::clone(&self.pack), bad.clone());
                    let is_new = at != 0 || self.findings.bad().insert(self.pack.hash, found).is_none();
                    // Where nobody else is to be asked, the error says it.
                    if is_new && self.findings.silent.len() > 1 {
                        tracing::warn!(source = self.uri(at), %bad, "not to be read from this source");
                    }
                    self.bad.get_or_insert(bad);
                }
                Err(Unread::Store(error)) => {
                    tracing::warn!(source = self.uri(at), %error, "cannot be read from this source");
                    self.findings.silent[at].store(true, Ordering::Relaxed);
                    self.silent.get_or_insert(error);
                }
            }
            self.reader = None;
        }
    }

    fn ask(&mut self, at: usize) -> Result<(usize, &mut BlockReader), Unread> {
        let source = self.sources.all().nth(at).ok_or_else(|| Unread::Bad(self.missing()))?;
        let reader = BlockReader::new(source.folder(), &self.pack, self.wanted.clone(), self.upper);
        let (at, reader) = self.reader.insert((at, reader));
        Ok((*at, reader))
    }

    fn in_vain(&mut self) -> Unread {
        match (self.silent.take(), self.bad.take()) {
            (Some(error), _) => Unread::Store(error),
            (None, bad) => Unread::Bad(bad.unwrap_or_else(|| self.missing())),
        }
    }

    fn missing(&self) -> BadPack {
        BadPack::Missing { pack: self.pack.hash }
    }

    fn uri(&self, at: usize) -> &str {
        self.sources.all().nth(at).map_or("", RunDir::uri)
    }
}
