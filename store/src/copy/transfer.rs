//! One pack from the source to the destination.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use object_store::PutMode;
use whimbrel_state::Pack;

use crate::{
    checkpoint::{
        block_reader::{BadPack, fetch},
        pack,
        save::Limits,
    },
    copy::memory_budget::Room,
    object::folder::{Created, Folder, StoreError},
};

/// The way from one store to another.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) source: Folder,
    pub(super) destination: Folder,
    pub(super) limits: Limits,
    pub(super) room: Room,
}

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

impl Route {
    /// Moves packs, several at a time, and says what became of each, the first to end first. What comes with a pack is
    /// handed on.
    pub(super) fn transfers<T>(
        self,
        packs: Vec<(Pack, T)>,
    ) -> impl Stream<Item = Result<(Pack, T, Transfer), StoreError>> + Unpin {
        // While as many as are allowed go out, as many come in.
        let at_a_time = self.limits.concurrency.max(1).saturating_mul(2);
        let route = Arc::new(self);
        let moves = packs.into_iter().map(move |(pack, with)| {
            let route = Arc::clone(&route);
            async move {
                let became = route.transfer(&pack).await?;
                Ok((pack, with, became))
            }
        });
        Box::pin(stream::iter(moves).buffer_unordered(at_a_time))
    }

    /// Moves a pack unless it is there. It is compared with its hash before it is put: damage is not spread.
    async fn transfer(&self, pack: &Pack) -> Result<Transfer, StoreError> {
        let name = pack::name(&pack.hash);
        let length =
            async || Ok::<_, StoreError>(self.destination.head(&name).await?.map(|found| found.size));
        let before = length().await?;
        if before == Some(pack.length) {
            return Ok(Transfer::Found);
        }
        let _room = self.room.take(pack.length).await;
        let body = match fetch(&self.source, pack).await? {
            Ok(body) => body,
            Err(bad) => return Ok(Transfer::Bad(bad)),
        };
        let put = async |body, mode| self.destination.put_pack(&name, body, mode, &self.limits).await;
        // Put at the same time by another copy, or by an attempt of ours whose answer was lost.
        if before.is_none()
            && (put(body.clone(), PutMode::Create).await? == Created::New
                || length().await? == Some(pack.length))
        {
            return Ok(Transfer::Moved);
        }
        // Under the name of these bytes there are others, cut short, or the put that blocked ours failed.
        put(body, PutMode::Overwrite).await?;
        Ok(Transfer::Moved)
    }
}
