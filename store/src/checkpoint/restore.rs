//! Reading a checkpoint back into memory: all of it, or some of its tensors.
//!
//! A worker calls [`restore`] when it resumes a run, and [`restore_some`] when a program wants only some tensors.
//! Blocks arrive in any order and are copied to their place in the state as they arrive.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::mpsc, task::JoinSet};
use whimbrel_state::{Hash, Layout, LayoutError, Manifest, ManifestError, Pack, StateBytes, TensorMut};

use crate::{
    checkpoint::{
        bad_pack::{BadPack, ReadPackError},
        block_reader::Block,
        extent::{Extent, blocks_holding},
        source_reader::{SourceFaults, SourceReader},
        sources::Sources,
    },
    object::{Limits, StoreError},
};

/// What a restore read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Packs of which at least one block was read.
    pub packs: usize,
    /// Bytes read, headers of packs included.
    pub bytes: u64,
    /// Packs that were missing or damaged in the primary source and are whole there again.
    pub healed: Vec<Hash>,
}

/// Why a restore failed. The memory then holds parts of the checkpoint and parts of what it held before: it is not a
/// state.
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
    /// The error of a read of the checkpoint of `step` in which a pack was not read.
    pub(super) fn new(step: u64, error: ReadPackError) -> Self {
        match error {
            ReadPackError::Bad(source) => Self::Damaged { step, source },
            ReadPackError::Store(error) => error.into(),
        }
    }
}

/// Fills a state from a checkpoint. Every byte is verified before it is copied.
///
/// The state must have the checkpoint's layout. Besides the state, memory holds up to [`Limits::concurrency`] times two
/// blocks of 4 MiB.
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

/// Fills some tensors from a checkpoint, for a program that wants, say, only the parameters. It reads only the blocks
/// of 4 MiB that hold parts of these tensors.
pub async fn restore_some(
    sources: &Sources,
    manifest: &Manifest,
    tensors: Vec<TensorMut<'_>>,
    limits: &Limits,
) -> Result<RestoreReport, RestoreError> {
    let misfit = |source| RestoreError::Layout { step: manifest.step, source };
    let mut state = StateBytes::new(tensors).map_err(misfit)?;
    for tensor in state.layout().tensors() {
        let differs = |stored: String| {
            let (name, dtype, shape) = (&tensor.name, tensor.dtype, &tensor.shape);
            misfit(LayoutError::Differs(format!(
                "{stored} in the checkpoint, {name:?} {dtype:?}{shape:?} asked for"
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

/// Copies every tensor that is both in `state` and in the manifest from the packs into `state`.
async fn fill(
    sources: &Sources,
    manifest: &Manifest,
    state: &mut StateBytes<'_>,
    limits: &Limits,
) -> Result<RestoreReport, RestoreError> {
    let step = manifest.step;
    manifest.check().map_err(|source| RestoreError::Manifest { step, source })?;
    let starts = starts(&manifest.layout, state.layout());
    let faults = SourceFaults::new(sources);
    let mut report = RestoreReport::default();
    let mut work = VecDeque::new();
    for pack in &manifest.packs {
        let copies = Arc::new(Copies::of(pack, &manifest.layout, &starts));
        let needed = copies.blocks(pack);
        report.packs += usize::from(!needed.is_empty());
        let pack = Arc::new(pack.clone());
        let extent = |blocks| Extent { pack: Arc::clone(&pack), blocks };
        work.extend(needed.into_iter().map(|blocks| (extent(blocks), Arc::clone(&copies))));
    }
    // The readers receive and verify blocks on all threads of the runtime. This task copies them into the state.
    let (send, mut blocks) = mpsc::channel(1);
    let mut readers = JoinSet::new();
    let max_readers = limits.concurrency.clamp(1, work.len().max(1));
    let work = Arc::new(Mutex::new(work));
    for _ in 0..max_readers {
        let (sources, faults, work) = (sources.clone(), Arc::clone(&faults), Arc::clone(&work));
        readers.spawn(read_extents(sources, faults, work, *limits, send.clone()));
    }
    drop(send);
    while let Some(read) = blocks.recv().await {
        let (block, copies): (Block, Arc<Copies>) = read.map_err(|error| RestoreError::new(step, error))?;
        report.bytes += block.range().end - block.range().start;
        copies.apply(&block, state);
    }
    while let Some(ended) = readers.join_next().await {
        let object = || sources.primary().uri().to_owned();
        ended.map_err(|source| StoreError::CutOff { object: object(), source })?;
    }
    report.healed = sources.heal(&faults, limits).await;
    Ok(report)
}

/// An extent to be read, and where its bytes go.
type Work = (Extent, Arc<Copies>);

/// Reads one extent after another until none is left, one fails, or the receiver is gone.
async fn read_extents(
    sources: Sources,
    faults: Arc<SourceFaults>,
    work: Arc<Mutex<VecDeque<Work>>>,
    limits: Limits,
    send: mpsc::Sender<Result<(Block, Arc<Copies>), ReadPackError>>,
) {
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some((extent, copies)) = next() {
        let mut reader = SourceReader::new(&sources, &faults, extent, limits.concurrency);
        while let Some(read) = reader.next().await.transpose() {
            let failed = read.is_err();
            if send.send(read.map(|block| (block, Arc::clone(&copies)))).await.is_err() || failed {
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

/// Which bytes of a pack go where in the wanted state, in the pack's order.
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

    /// The blocks of the pack that these bytes are in. Adjacent ones are joined.
    fn blocks(&self, pack: &Pack) -> Vec<Range<u64>> {
        let mut joined: Vec<Range<u64>> = Vec::new();
        for copy in self.0.iter().filter(|copy| !copy.from.is_empty()) {
            let holding = blocks_holding(pack, &copy.from);
            match joined.last_mut() {
                Some(last) if holding.start <= last.end => last.end = last.end.max(holding.end),
                _ => joined.push(holding),
            }
        }
        joined
    }

    /// Copies the bytes of a block into the state.
    fn apply(&self, block: &Block, state: &mut StateBytes<'_>) {
        let range = block.range();
        let before_its_end = self.0.iter().take_while(|copy| copy.from.start < range.end);
        // A linear search: where pieces share bytes of a pack, the ends are in no order.
        for copy in before_its_end.filter(|copy| copy.from.end > range.start) {
            let to = copy.to + range.start.saturating_sub(copy.from.start) as usize;
            state.write(to, &block.slice(&copy.from));
        }
    }
}
