//! Healing: packs that a read found missing or damaged in the primary are put back from a replica.
//!
//! Restores and state readers call [`Sources::heal`] when they have read everything.

use futures::{StreamExt, stream};
use object_store::PutMode;
use whimbrel_state::{Hash, Pack};

use crate::{
    checkpoint::{
        bad_pack::BadPack, block_reader::read_pack, pack::pack_name, source_reader::SourceFaults,
        sources::Sources,
    },
    object::Limits,
};

/// Packs put back at a time. Each is in memory whole.
const MAX_CONCURRENCY: usize = 4;

impl Sources {
    /// Puts packs back into the primary that the read found missing or damaged there. Returns those that are whole
    /// again. A failure is logged and does not fail the read.
    pub(super) async fn heal(&self, faults: &SourceFaults, limits: &Limits) -> Vec<Hash> {
        let healing = faults.take_bad().into_iter().map(|(pack, bad)| async move {
            let hash = pack.hash;
            self.put_back(&pack, &bad, limits).await.then_some(hash)
        });
        let healed = stream::iter(healing).buffer_unordered(limits.concurrency.clamp(1, MAX_CONCURRENCY));
        healed.filter_map(std::future::ready).collect().await
    }

    async fn put_back(&self, wanted: &Pack, bad: &BadPack, limits: &Limits) -> bool {
        let (folder, name) = (self.primary().folder(), pack_name(&wanted.hash));
        for replica in self.replicas() {
            let Ok(body) = read_pack(replica.folder(), wanted).await else { continue };
            // Another reader may have put a missing pack back since: it is not overwritten.
            let mode = match bad {
                BadPack::Missing { .. } => PutMode::Create,
                BadPack::Damaged { .. } | BadPack::WrongLength { .. } => PutMode::Overwrite,
            };
            match folder.put_pack(&name, body, mode, limits).await {
                Ok(_) => return true,
                Err(error) => {
                    tracing::warn!(object = folder.uri_of(&name), %error, "a pack could not be put back");
                    return false;
                }
            }
        }
        false
    }
}
