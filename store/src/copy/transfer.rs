//! One pack from the source to the destination.

use object_store::PutMode;
use whimbrel_state::Pack;

use crate::{
    fetch::{BadPack, fetch},
    folder::{Created, Folder, StoreError},
    pack,
    save::Limits,
};

/// What became of a pack that was to move.
#[derive(Debug)]
pub(super) enum Transfer {
    /// It has arrived.
    Moved,
    /// It was there.
    Found,
    /// The source does not have it as it was put.
    Bad(BadPack),
}

/// Moves a pack unless it is there. It is compared with its hash before it is put: damage is not spread.
pub(super) async fn transfer(
    source: Folder,
    destination: Folder,
    pack: &Pack,
    limits: &Limits,
) -> Result<Transfer, StoreError> {
    let name = pack::name(&pack.hash);
    let length = async || Ok::<_, StoreError>(destination.head(&name).await?.map(|found| found.size));
    let before = length().await?;
    if before == Some(pack.length) {
        return Ok(Transfer::Found);
    }
    let body = match fetch(&source, pack).await? {
        Ok(body) => body,
        Err(bad) => return Ok(Transfer::Bad(bad)),
    };
    // Put at the same time by another copy, or by an attempt of ours whose answer was lost.
    if before.is_none()
        && (destination.put_pack(&name, body.clone(), PutMode::Create, limits).await? == Created::New
            || length().await? == Some(pack.length))
    {
        return Ok(Transfer::Moved);
    }
    // Under the name of these bytes there are others, cut short, or the put that blocked ours failed.
    destination.put_pack(&name, body, PutMode::Overwrite, limits).await?;
    Ok(Transfer::Moved)
}
