//! Setting a damaged checkpoint aside.

use whimbrel_state::Hash;

use crate::{
    entry::Record,
    folder::StoreError,
    office::{AppendError, Office},
    pack,
};

/// A quarantine that was not, or not wholly, carried out.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It is in the log, and a damaged pack could not be removed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Records that a checkpoint is not to be used, and removes those of the packs `suspects` that are really damaged;
/// returns them.
///
/// They are removed because saves skip packs that the store has: frozen layers would be refused a good copy for ever,
/// and every later checkpoint would be as bad as this one.
pub async fn quarantine(
    office: &mut Office,
    manifest: &str,
    reason: &str,
    suspects: &[Hash],
) -> Result<Vec<Hash>, QuarantineError> {
    tracing::error!(run = office.run().uri(), manifest, reason, "checkpoint quarantined");
    office.append(Record::Quarantined { manifest: manifest.to_owned(), reason: reason.to_owned() }).await?;
    let mut removed = Vec::new();
    for suspect in suspects {
        let name = pack::name(suspect);
        let folder = office.run().folder().clone();
        let Some(bytes) = folder.get(&name).await? else { continue };
        if Hash::of(&bytes) != *suspect {
            office.check().await?;
            folder.delete(&[name]).await?;
            removed.push(*suspect);
        }
    }
    Ok(removed)
}
