//! Saving a slice of the state: cutting it into packs and putting those that the store lacks.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, PutMode, PutPayload};
use whimbrel_state::{Layout, Pack};

use crate::{
    checkpoint::pack,
    log::run_dir::RunDir,
    object::{Created, Folder, StoreError},
};

pub use crate::object::Limits;

/// A slice that was not saved. Packs that were put stay, and saving it again skips them.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The range is not one of the state's.
    #[error("the slice {}..{} cannot be saved: {why}", range.start, range.end)]
    Range {
        /// The bytes of the state that were to be saved.
        range: Range<usize>,
        /// What is wrong with them.
        why: &'static str,
    },
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Saves the bytes `range` of the state, staged in `bytes`, and returns the packs that hold them, in the order of the
/// state's bytes: the slice's part of a manifest.
///
/// A pack is one put. One that the store has already, with the right length, is not put again. What is saved does not
/// count until a checkpoint that names it is [committed](crate::commit).
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
    // While as many as are allowed are under way, the next is hashed.
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
    put_pack(&folder, &encoded.pack, encoded.body, &limits).await?;
    Ok(encoded.pack)
}

/// Puts a pack that the store may have already.
async fn put_pack(folder: &Folder, pack: &Pack, body: PutPayload, limits: &Limits) -> Result<(), StoreError> {
    let name = pack::name(&pack.hash);
    let is_whole = |found: Option<ObjectMeta>| found.is_some_and(|found| found.size == pack.length);
    match folder.head(&name).await? {
        None => {
            if folder.put_pack(&name, body.clone(), PutMode::Create, limits).await? == Created::New {
                return Ok(());
            }
            // Put at the same time by a worker that holds the same bytes, or by an attempt of ours whose answer was
            // lost.
            if is_whole(folder.head(&name).await?) {
                return Ok(());
            }
        }
        found if is_whole(found.clone()) => return Ok(()),
        Some(_) => {}
    }
    // Under the name of these bytes there are others, cut short or overwritten, or the put that blocked ours failed.
    tracing::warn!(pack = folder.uri_of(&name), "not as it was put: putting it again");
    folder.put_pack(&name, body, PutMode::Overwrite, limits).await.map(|_| ())
}
