//! Saving a slice of the state: cutting it into packs and putting those that the store lacks.
//!
//! Each worker calls [`save_slice`] for its own slice, while the next steps run. An import calls it for each pack of a
//! model.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use whimbrel_state::{Layout, Pack};

use crate::{
    checkpoint::{
        pack,
        put_pack::{put_pack, stored_length},
    },
    log::RunDir,
    object::{Folder, Limits, StoreError},
};

/// Why a slice was not saved. Packs that were put stay in the store, and the next save skips them.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The byte range is not a slice of the state.
    #[error("the slice {}..{} cannot be saved: {why}", range.start, range.end)]
    Range {
        /// The bytes of the state that were to be saved.
        range: Range<usize>,
        /// What is wrong with the range.
        why: &'static str,
    },
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Saves the bytes `range` of the state, staged in `bytes`. Returns the packs that hold them, in the order of the
/// state's bytes: this slice's part of a manifest.
///
/// A pack is one put. A pack that the store already has in the right length is not put again. The slice becomes part of
/// a checkpoint when a manifest that names its packs is [committed](crate::commit).
pub async fn save_slice(
    run: &RunDir,
    layout: &Layout,
    range: Range<usize>,
    bytes: Bytes,
    limits: &Limits,
) -> Result<Vec<Pack>, SaveError> {
    let wrong = |why| SaveError::Range { range: range.clone(), why };
    if range.start > range.end || range.end > layout.bytes() {
        return Err(wrong("it reaches past the end of the state"));
    }
    if bytes.len() != range.len() {
        return Err(wrong("the staged copy has another length"));
    }
    if [range.start, range.end].iter().any(|&end| pack::element_start(layout, end) != end) {
        return Err(wrong("it starts or ends within an element"));
    }
    let packs = pack::cut(layout, range.clone(), limits.pack_bytes).into_iter().map(|cut| {
        let staged = bytes.slice(cut.start - range.start..cut.end - range.start);
        save_pack(run.folder().clone(), layout.clone(), cut, staged, *limits)
    });
    // One more than may transfer: its pack is hashed while the others transfer.
    Ok(stream::iter(packs).buffered(limits.concurrency.max(1) + 1).try_collect().await?)
}

async fn save_pack(
    folder: Folder,
    layout: Layout,
    range: Range<usize>,
    staged: Bytes,
    limits: Limits,
) -> Result<Pack, StoreError> {
    let turn = folder.flow_control().hashing_permit().await;
    let encode = move || pack::encode(&layout, range, &staged);
    let cut_off = |source| StoreError::CutOff { object: folder.uri_of("packs"), source };
    let encoded = tokio::task::spawn_blocking(encode).await.map_err(cut_off)?;
    drop(turn);
    let stored = stored_length(&folder, &encoded.pack).await?;
    if stored != Some(encoded.pack.length) {
        put_pack(&folder, &encoded.pack, encoded.body, stored, &limits).await?;
    }
    Ok(encoded.pack)
}
