//! Setting a damaged checkpoint aside.

use whimbrel_state::{Hash, Pack};

use crate::{
    checkpoint::{
        block_reader::{BadPack, check},
        pack,
    },
    log::{
        entry::Record,
        term::{AppendError, Term},
    },
    object::folder::StoreError,
};

/// A quarantine that was not, or not wholly, carried out.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A pack could not be read or removed. Nothing is recorded yet.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes those of the packs `suspects` that are really damaged, and records that the checkpoint is not to be used;
/// returns the packs removed.
///
/// They are removed because saves skip packs that the store has: frozen layers would be refused a good copy for ever,
/// and every later checkpoint would be as bad as this one. They go before the record is made: a crash in between leaves
/// a checkpoint that lacks packs, which is noticed and quarantined again, and not a damaged pack that nobody suspects.
pub async fn quarantine(
    term: &mut Term,
    manifest: &str,
    reason: &str,
    suspects: &[Pack],
) -> Result<Vec<Hash>, QuarantineError> {
    tracing::error!(run = term.run().uri(), manifest, reason, "checkpoint quarantined");
    let folder = term.run().folder().clone();
    let mut removed = Vec::new();
    for suspect in suspects {
        // Read twice before it is believed, as for a restore: what the network did passes.
        if let Err(BadPack::Damaged { .. } | BadPack::WrongLength { .. }) = check(&folder, suspect).await? {
            term.check().await?;
            folder.delete(&[pack::name(&suspect.hash)]).await?;
            removed.push(suspect.hash);
        }
    }
    term.append(Record::Quarantined { manifest: manifest.to_owned(), reason: reason.to_owned() }).await?;
    Ok(removed)
}
