//! Reading a checkpoint back into memory, all of it or some of its tensors.

use futures::{StreamExt, TryStreamExt, stream};
use whimbrel_state::{Hash, Layout, LayoutError, Manifest, ManifestError, Pack, StateBytes, TensorMut};

use crate::{fetch::BadPack, folder::StoreError, save::Limits, sources::Sources};

/// What a restore read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Packs read.
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

/// Fills a state from a checkpoint. Every byte is verified before it is copied.
///
/// The state must have the checkpoint's layout. Up to [`Limits::concurrency`] packs, and one more, are in memory.
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

/// Fills some tensors of a checkpoint, as a program does that only wants the parameters. Packs that hold none of them
/// are not read; those that do are verified whole.
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
    let copies = Copies::new(&manifest.layout, state.layout());
    let needed = manifest.packs.iter().filter(|pack| copies.of(pack).next().is_some()).cloned();
    let needed: Vec<Pack> = needed.collect();
    let mut report = RestoreReport::default();
    // Packs of their own, since a future that borrows each in turn is not one the compiler lets go to other threads.
    let reads = needed.into_iter().map(|pack| async move {
        let read = sources.pack(&pack).await?;
        Ok::<_, RestoreError>((pack, read))
    });
    let mut reads = stream::iter(reads).buffer_unordered(limits.concurrency.max(1));
    while let Some((pack, read)) = reads.try_next().await? {
        let (bytes, healed) = read.map_err(|source| RestoreError::Damaged { step, source })?;
        for copy in copies.of(&pack) {
            state.write(copy.to, &bytes[copy.from..copy.from + copy.length]);
        }
        report.healed.extend(healed.then_some(pack.hash));
        report.packs += 1;
        report.bytes += pack.length;
    }
    Ok(report)
}

/// Where the bytes of a pack go in a state that has some of the checkpoint's tensors.
struct Copies<'a> {
    stored: &'a Layout,
    /// For each stored tensor, the byte of the state at which it starts, if the state has it.
    starts: Vec<Option<usize>>,
}

struct Copy {
    /// The byte of the pack.
    from: usize,
    /// The byte of the state.
    to: usize,
    length: usize,
}

impl<'a> Copies<'a> {
    fn new(stored: &'a Layout, wanted: &Layout) -> Self {
        let start = |name| index_of(wanted, name).map(|index| wanted.range_of(index).start);
        Self { stored, starts: stored.tensors().iter().map(|tensor| start(&tensor.name)).collect() }
    }

    fn of<'b>(&'b self, pack: &'b Pack) -> impl Iterator<Item = Copy> + 'b {
        pack.pieces.iter().flat_map(move |piece| {
            let range = piece.state_range();
            let (offset, first) = (piece.offset as usize, range.start as usize);
            self.stored.pieces(first..range.end as usize).filter_map(move |(index, part)| {
                let from = offset + self.stored.range_of(index).start + part.start - first;
                Some(Copy { from, to: self.starts[index]? + part.start, length: part.len() })
            })
        })
    }
}
