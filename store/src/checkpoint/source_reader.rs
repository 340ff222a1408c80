//! Reading blocks from the first source that has them, and going on with the next source where one fails.

use std::{
    collections::{BTreeMap, VecDeque},
    mem::take,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use whimbrel_state::{Hash, Pack};

use crate::{
    checkpoint::{
        bad_pack::{BadPack, ReadPackError},
        block_reader::{Block, BlockReader},
        extent::Extent,
        sources::Sources,
    },
    log::RunDir,
    object::StoreError,
};

/// What the readers of one restore, or of another read, find out about its sources. They share it.
#[derive(Debug)]
pub(crate) struct SourceFaults {
    /// For each source, whether it failed to answer. It is asked last from then on.
    unresponsive: Vec<AtomicBool>,
    /// Packs that are missing or damaged in the primary.
    bad: Mutex<BTreeMap<Hash, (Arc<Pack>, BadPack)>>,
}

impl SourceFaults {
    pub(crate) fn new(sources: &Sources) -> Arc<Self> {
        let unresponsive = sources.all().map(|_| AtomicBool::new(false)).collect();
        Arc::new(Self { unresponsive, bad: Mutex::default() })
    }

    /// Takes the packs that are missing or damaged in the primary.
    pub(super) fn take_bad(&self) -> Vec<(Arc<Pack>, BadPack)> {
        take(&mut *self.bad()).into_values().collect()
    }

    fn bad(&self) -> MutexGuard<'_, BTreeMap<Hash, (Arc<Pack>, BadPack)>> {
        // A panic while the lock was held leaves the map whole: an insertion is all that happens under it.
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sources by index, those that did not answer last.
    fn order(&self) -> VecDeque<usize> {
        let is_unresponsive = |source: &usize| self.unresponsive[*source].load(Ordering::Relaxed);
        let (unresponsive, answering): (Vec<usize>, Vec<usize>) =
            (0..self.unresponsive.len()).partition(is_unresponsive);
        answering.into_iter().chain(unresponsive).collect()
    }
}

/// Reads an extent from the sources, block by block.
#[derive(Debug)]
pub(crate) struct SourceReader {
    sources: Sources,
    faults: Arc<SourceFaults>,
    /// The blocks that have not been read yet.
    wanted: Extent,
    max_transfers: usize,
    /// Sources that were not asked yet, by index.
    to_ask: VecDeque<usize>,
    /// The source that is asked, by index, and the reader from it.
    reader: Option<(usize, BlockReader)>,
    /// The first source in which the pack is bad, and the first that failed.
    bad: Option<BadPack>,
    failed: Option<StoreError>,
}

impl SourceReader {
    pub(crate) fn new(
        sources: &Sources,
        faults: &Arc<SourceFaults>,
        wanted: Extent,
        max_transfers: usize,
    ) -> Self {
        let (sources, faults) = (sources.clone(), Arc::clone(faults));
        let to_ask = faults.order();
        Self { sources, faults, wanted, max_transfers, to_ask, reader: None, bad: None, failed: None }
    }

    /// The next block; `None` after the last.
    ///
    /// If no source has it, the error is the first of a source that failed (it may have the pack), else what is wrong
    /// with the pack in the first source.
    pub(crate) async fn next(&mut self) -> Result<Option<Block>, ReadPackError> {
        loop {
            let (source, reader) = match &mut self.reader {
                Some((source, reader)) => (*source, reader),
                None => match self.to_ask.pop_front() {
                    Some(source) => self.ask(source)?,
                    None => return Err(self.error()),
                },
            };
            match reader.next().await {
                Ok(Some(block)) => {
                    self.wanted.blocks.start = block.index + 1;
                    return Ok(Some(block));
                }
                Ok(None) => return Ok(None),
                Err(ReadPackError::Bad(bad)) => {
                    let pack = Arc::clone(&self.wanted.pack);
                    let is_new =
                        source != 0 || self.faults.bad().insert(pack.hash, (pack, bad.clone())).is_none();
                    // With a single source the returned error says it.
                    if is_new && self.faults.unresponsive.len() > 1 {
                        tracing::warn!(source = self.uri(source), %bad, "trying the next source");
                    }
                    self.bad.get_or_insert(bad);
                }
                Err(ReadPackError::Store(error)) => {
                    tracing::warn!(source = self.uri(source), %error, "the source cannot be read: trying the next");
                    self.faults.unresponsive[source].store(true, Ordering::Relaxed);
                    self.failed.get_or_insert(error);
                }
            }
            self.reader = None;
        }
    }

    fn ask(&mut self, source: usize) -> Result<(usize, &mut BlockReader), ReadPackError> {
        let run = self.sources.all().nth(source).ok_or_else(|| ReadPackError::Bad(self.missing()))?;
        let reader = BlockReader::new(run.folder(), self.wanted.clone(), self.max_transfers);
        let (source, reader) = self.reader.insert((source, reader));
        Ok((*source, reader))
    }

    fn error(&mut self) -> ReadPackError {
        match (self.failed.take(), self.bad.take()) {
            (Some(error), _) => ReadPackError::Store(error),
            (None, bad) => ReadPackError::Bad(bad.unwrap_or_else(|| self.missing())),
        }
    }

    fn missing(&self) -> BadPack {
        BadPack::Missing { pack: self.wanted.pack.hash }
    }

    fn uri(&self, source: usize) -> &str {
        self.sources.all().nth(source).map_or("", RunDir::uri)
    }
}
