//! Moving packs from the source to the destination, several at a time.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use whimbrel_state::Pack;

use crate::{
    checkpoint::{BadPack, ReadPackError, put_pack, read_pack, stored_length},
    copy::memory_budget::MemoryBudget,
    object::{Folder, Limits, StoreError},
};

/// The way from one store to another.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) source: Folder,
    pub(super) destination: Folder,
    pub(super) limits: Limits,
    pub(super) memory: MemoryBudget,
}

/// What happened to a pack that was to move.
#[derive(Debug)]
pub(super) enum TransferOutcome {
    /// It has arrived.
    Moved,
    /// The destination had it already.
    Found,
    /// It is missing or damaged in the source.
    Bad(BadPack),
}

impl Route {
    /// Moves packs. Yields the outcome of each as it ends, with the value that came with the pack.
    pub(super) fn transfers<T>(
        self,
        packs: Vec<(Pack, T)>,
    ) -> impl Stream<Item = Result<(Pack, T, TransferOutcome), StoreError>> + Unpin {
        // As many are read from the source as are put to the destination.
        let at_a_time = self.limits.concurrency.max(1).saturating_mul(2);
        let route = Arc::new(self);
        let moves = packs.into_iter().map(move |(pack, with)| {
            let route = Arc::clone(&route);
            async move {
                let outcome = route.transfer(&pack).await?;
                Ok((pack, with, outcome))
            }
        });
        Box::pin(stream::iter(moves).buffer_unordered(at_a_time))
    }

    /// Moves a pack unless the destination has it. It is compared with its hash before it is put: damage does not
    /// spread.
    async fn transfer(&self, pack: &Pack) -> Result<TransferOutcome, StoreError> {
        let stored = stored_length(&self.destination, pack).await?;
        if stored == Some(pack.length) {
            return Ok(TransferOutcome::Found);
        }
        let _reserved = self.memory.reserve(pack.length).await;
        let body = match read_pack(&self.source, pack).await {
            Ok(body) => body,
            Err(ReadPackError::Bad(bad)) => return Ok(TransferOutcome::Bad(bad)),
            Err(ReadPackError::Store(error)) => return Err(error),
        };
        put_pack(&self.destination, pack, body, stored, &self.limits).await?;
        Ok(TransferOutcome::Moved)
    }
}
