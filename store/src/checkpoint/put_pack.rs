//! Putting a pack into a store that may already have it. Saves and copies call this.

use object_store::{PutMode, PutPayload};
use whimbrel_state::Pack;

use crate::{
    checkpoint::pack::pack_name,
    object::{Created, Folder, Limits, StoreError},
};

/// The length in bytes of the object under a pack's name; `None` if there is no such object.
pub(crate) async fn stored_length(folder: &Folder, pack: &Pack) -> Result<Option<u64>, StoreError> {
    Ok(folder.head(&pack_name(&pack.hash)).await?.map(|found| found.size))
}

/// Puts a pack that [`stored_length`] did not find in its right length. `stored` is the length that it found.
pub(crate) async fn put_pack(
    folder: &Folder,
    pack: &Pack,
    body: PutPayload,
    stored: Option<u64>,
    limits: &Limits,
) -> Result<(), StoreError> {
    let name = pack_name(&pack.hash);
    if stored.is_none() {
        if folder.put_pack(&name, body.clone(), PutMode::Create, limits).await? == Created::New {
            return Ok(());
        }
        // Another program put the same pack in the meantime, or an earlier attempt of this put succeeded and its answer
        // was lost.
        if stored_length(folder, pack).await? == Some(pack.length) {
            return Ok(());
        }
    }
    // The object was cut short or overwritten, or the put that blocked this one failed.
    tracing::warn!(pack = folder.uri_of(&name), "a pack has the wrong length in the store: putting it again");
    folder.put_pack(&name, body, PutMode::Overwrite, limits).await.map(|_| ())
}
