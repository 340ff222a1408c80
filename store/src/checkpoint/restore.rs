//! Reading a checkpoint back into memory, all of it or some of its tensors.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::mpsc, task::JoinSet};
use whimbrel_state::{Hash, Layout, LayoutError, Manifest, ManifestError, Pack, StateBytes, TensorMut};

use crate::{
    checkpoint::{
        block_reader::{BadPack, Block, Unread, blocks_holding},
        save::Limits,
        sources::{Findings, SourceReader, Sources},
    },
    object::folder::StoreError,
};

/// What a restore read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Packs of which something was read.
    pub packs: usize,
    /// Bytes read, headers included.
    pub bytes: u64,
    /// Packs that were missing or damaged in the primary source, and are whole there again.
    pub healed: Vec<Hash>,
}

/// A restore that failed. The memory it was to fill then holds some of the checkpoint and some of what it held before:
/// it is no state.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint holds other tensors than the memory.
    #[error("the checkpoint of step {step} does not fit this program's state")]
    Layout {
        /// The checkpoint's step.
        step: u64,
        /// The first difference.
        source: LayoutError,
    },
    /// The manifest describes no whole state.
    #[error("the manifest of step {step} describes no whole state")]
    Manifest {
        /// The checkpoint's step.
        step: u64,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A pack is missing or damaged in every source: quarantine the checkpoint and use the one before.
    #[error("the checkpoint of step {step} is damaged")]
    Damaged {
        /// The checkpoint's step.
        step: u64,
        /// The pack.
        source: BadPack,
    },
    /// A request to the store failed. The checkpoint may be good.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RestoreError {
    /// What it means for the checkpoint after `step` that a pack was not read.
    pub(crate) fn of(step: u64, unread: Unread) -> Self {
        match unread {
            Unread::Bad(source) => Self::Damaged { step, source },
            Unread::Store(error) => error.into(),
        }
    }
}

/// Fills a state from a checkpoint. Every byte is verified before it is copied.
///
/// The state must have the checkpoint's layout. In memory besides the state are up to [`Limits::concurrency`] times
/// two blocks of 4 MiB; of a checkpoint whose manifest knows no blocks (format 1), that many times two packs.
pub async fn restore(
    sources: &Sources,
    manifest: &Manifest,
    state: &mut StateBytes<'_>,
    limits: &Limits,
) -> Result<RestoreReport, RestoreError> {
    let step = manifest.step;
    manifest.layout.same_as(state.layout()).map_err(|source| RestoreError::Layout { step, source })?;
    fill(sources, manifest, state, limits).await
}

/// Fills some tensors of a checkpoint, as a program does that only wants the parameters. Only the blocks of 4 MiB that
/// hold some of them are read.
pub async fn restore_some(
    sources: &Sources,
    manifest: &Manifest,
    tensors: Vec<TensorMut<'_>>,
    limits: &Limits,
) -> Result<RestoreReport, RestoreError> {
    let misfit = |source| RestoreError::Layout { step: manifest.step, source };
    let mut state = StateBytes::new(tensors).map_err(misfit)?;
    for tensor in state.layout().tensors() {
        let differs = |there: String| {
            let (name, dtype, shape) = (&tensor.name, tensor.dtype, &tensor.shape);
            misfit(LayoutError::Differs(format!(
                "{there} in the checkpoint, {name:?} {dtype:?}{shape:?} asked for"
            )))
        };
        match index_of(&manifest.layout, &tensor.name).map(|index| &manifest.layout.tensors()[index]) {
            Some(stored) if stored == tensor => {}
            Some(stored) => {
                return Err(differs(format!("{:?} {:?}{:?}", stored.name, stored.dtype, stored.shape)));
            }
            None => return Err(differs("no such tensor".to_owned())),
        }
    }
    fill(sources, manifest, &mut state, limits).await
}

fn index_of(layout: &Layout, name: &str) -> Option<usize> {
    layout.tensors().binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()
}

/// Copies every tensor that `state` and the manifest share from the packs into `state`.
async fn fill(
    sources: &Sources,
    manifest: &Manifest,
    state: &mut StateBytes<'_>,
    limits: &Limits,
) -> Result<RestoreReport, RestoreError> {
    let step = manifest.step;
    manifest.check().map_err(|source| RestoreError::Manifest { step, source })?;
    let starts = starts(&manifest.layout, state.layout());
    let findings = Findings::new(sources);
    let mut report = RestoreReport::default();
    let mut runs = VecDeque::new();
    for pack in &manifest.packs {
        let copies = Arc::new(Copies::of(pack, &manifest.layout, &starts));
        let needed = copies.runs(pack);
        report.packs += usize::from(!needed.is_empty());
        let pack = Arc::new(pack.clone());
        let run = |blocks| Run { pack: Arc::clone(&pack), blocks, copies: Arc::clone(&copies) };
        runs.extend(needed.into_iter().map(run));
    }
    // Blocks come in and are verified on all of the runtime's threads, and are copied on this one.
    let (tell, mut told) = mpsc::channel(1);
    let mut readers = JoinSet::new();
    let readers_at_most = limits.concurrency.clamp(1, runs.len().max(1));
    let runs = Arc::new(Mutex::new(runs));
    for _ in 0..readers_at_most {
        let (sources, findings, runs) = (sources.clone(), Arc::clone(&findings), Arc::clone(&runs));
        readers.spawn(read_runs(sources, findings, runs, *limits, tell.clone()));
    }
    drop(tell);
    while let Some(read) = told.recv().await {
        let (block, copies): Told = read.map_err(|unread| RestoreError::of(step, unread))?;
        report.bytes += block.range().end - block.range().start;
        copies.carry_out(&block, state);
    }
    while let Some(ended) = readers.join_next().await {
        let object = || sources.primary().uri().to_owned();
        ended.map_err(|source| StoreError::CutOff { object: object(), source })?;
    }
    report.healed = sources.heal(&findings, limits).await;
    Ok(report)
}

/// Consecutive blocks of a pack, which are read in one request, and where their bytes go.
struct Run {
    pack: Arc<Pack>,
    blocks: Range<u64>,
    copies: Arc<Copies>,
}

type Told = (Block, Arc<Copies>);

/// Reads one run after another until there are none, one fails, or nobody listens any more.
async fn read_runs(
    sources: Sources,
    findings: Arc<Findings>,
    runs: Arc<Mutex<VecDeque<Run>>>,
    limits: Limits,
    tell: mpsc::Sender<Result<Told, Unread>>,
) {
    let next = || runs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(Run { pack, blocks, copies }) = next() {
        let mut reader = SourceReader::new(&sources, &findings, &pack, blocks, limits.concurrency);
        while let Some(read) = reader.next().await.transpose() {
            let failed = read.is_err();
            if tell.send(read.map(|block| (block, Arc::clone(&copies)))).await.is_err() || failed {
                return;
            }
        }
    }
}

/// For each stored tensor, the byte of the wanted state at which it starts, if that state has it.
fn starts(stored: &Layout, wanted: &Layout) -> Vec<Option<usize>> {
    let start = |name| index_of(wanted, name).map(|index| wanted.range_of(index).start);
    stored.tensors().iter().map(|tensor| start(&tensor.name)).collect()
}

/// Where the bytes of a pack go in a state that has some of the checkpoint's tensors, in the pack's order.
struct Copies(Vec<Copy>);

#[derive(Clone, Debug)]
struct Copy {
    /// Bytes of the pack.
    from: Range<u64>,
    /// The byte of the state.
    to: usize,
}

impl Copies {
    fn of(pack: &Pack, stored: &Layout, starts: &[Option<usize>]) -> Self {
        let mut copies: Vec<Copy> = Vec::new();
        for piece in &pack.pieces {
            let range = piece.state_range();
            for (index, part) in stored.pieces(range.start as usize..range.end as usize) {
                let Some(start) = starts[index] else { continue };
                let from = piece.offset + (stored.range_of(index).start + part.start) as u64 - range.start;
                let (from, to) = (from..from + part.len() as u64, start + part.start);
                match copies.last_mut() {
                    Some(last)
                        if last.from.end == from.start
                            && last.to + (last.from.end - last.from.start) as usize == to =>
                    {
                        last.from.end = from.end;
                    }
                    _ => copies.push(Copy { from, to }),
                }
            }
        }
        copies.sort_unstable_by_key(|copy| copy.from.start);
        Self(copies)
    }

    /// The blocks of the pack that hold any of it, those that follow each other as one.
    fn runs(&self, pack: &Pack) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for copy in self.0.iter().filter(|copy| !copy.from.is_empty()) {
            let holding = blocks_holding(pack, &copy.from);
            match runs.last_mut() {
                Some(last) if holding.start <= last.end => last.end = last.end.max(holding.end),
                _ => runs.push(holding),
            }
        }
        runs
    }

    fn carry_out(&self, block: &Block, state: &mut StateBytes<'_>) {
        let range = block.range();
        let before_its_end = self.0.iter().take_while(|copy| copy.from.start < range.end);
        // Not to be searched for by their ends: pieces that share bytes of a pack have those in any order.
        for copy in before_its_end.filter(|copy| copy.from.end > range.start) {
            let to = copy.to + range.start.saturating_sub(copy.from.start) as usize;
            state.write(to, &block.slice(&copy.from));
        }
    }
}
