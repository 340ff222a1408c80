//! Quarantine: a damaged checkpoint is recorded as unusable, and its damaged packs are deleted.
//!
//! The coordinator calls [`quarantine`] after a worker could not restore a checkpoint from any source.

use whimbrel_state::{Hash, Pack};

use crate::{
    checkpoint::{
        bad_pack::{BadPack, ReadPackError},
        block_reader::check_pack,
        pack::pack_name,
    },
    log::{AppendError, Record, Term},
    object::StoreError,
};

/// Why a quarantine was not carried out, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The entry was not appended to the log.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A pack could not be read or deleted. Nothing is recorded yet.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes those of the packs `suspects` that are damaged, and records that the checkpoint is not to be used. Returns
/// the packs deleted.
///
/// Damaged packs are deleted because a save skips packs that the store has: a good copy of a frozen layer would never
/// be put, and every later checkpoint would be as bad as this one. They are deleted before the entry is appended: a
/// crash in between leaves a checkpoint that lacks packs, which the next restore notices, and not a damaged pack that
/// nothing points to.
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
        match check_pack(&folder, suspect).await {
            Ok(()) | Err(ReadPackError::Bad(BadPack::Missing { .. })) => {}
            Err(ReadPackError::Bad(BadPack::Damaged { .. } | BadPack::WrongLength { .. })) => {
                term.check().await?;
                folder.delete(&[pack_name(&suspect.hash)]).await?;
                removed.push(suspect.hash);
            }
            Err(ReadPackError::Store(error)) => return Err(error.into()),
        }
    }
    term.append(Record::Quarantined { manifest: manifest.to_owned(), reason: reason.to_owned() }).await?;
    Ok(removed)
}
