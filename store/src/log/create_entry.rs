//! Creating one entry of a log, and finding out whether it was created whatever the store answers.
//!
//! # Why a lost answer does no harm
//! A create may succeed although its answer is lost. A retry then fails, because the object exists. So each write has a
//! random name, the entry's [`writer`](Entry::writer): an existing entry with that name is this write's own. A write that
//! failed for good may still land later; the next append of the same term then finds that entry and goes on after it.

use bytes::Bytes;
use chrono::Utc;
use tokio::time::sleep;

use super::{
    entry::{self, Entry, FORMAT, Record},
    run_log::{LogError, read_entry},
};
use crate::object::{Created, Folder, random_name};

/// The outcome of creating an entry.
pub(super) enum EntryCreation {
    /// The entry is in the log.
    Created,
    /// Another entry, this one, has the number.
    Taken(Entry),
}

/// An entry that is not in the log yet.
pub(super) fn draft(number: u64, epoch: u64, record: Record) -> Result<Entry, LogError> {
    Ok(Entry { format: FORMAT, number, epoch, writer: random_name()?, time: Utc::now(), record })
}

/// Creates an entry under its number.
pub(super) async fn create_entry(folder: &Folder, entry: &Entry) -> Result<EntryCreation, LogError> {
    let name = entry::name(entry.number);
    let unwritable = |source| LogError::Entry { object: folder.uri_of(&name), source };
    let body = Bytes::from(entry.encode().map_err(unwritable)?);
    let outcome = |found: Entry| {
        if found.writer == entry.writer { EntryCreation::Created } else { EntryCreation::Taken(found) }
    };
    for attempt in 0..folder.retry_policy().attempts.max(1) {
        match folder.create(&name, body.clone()).await {
            Ok(Created::New) => {
                read_back(folder, &name, &body).await?;
                return Ok(EntryCreation::Created);
            }
            Ok(Created::Taken) => match read_entry(folder, entry.number).await? {
                Some(found) => return Ok(outcome(found)),
                // On S3 a create that races with another is refused as if the object existed, and the other may yet fail.
                None => sleep(folder.retry_policy().wait(attempt)).await,
            },
            // The write may have landed and every answer been lost.
            Err(error) => {
                return match read_entry(folder, entry.number).await {
                    Ok(Some(found)) => Ok(outcome(found)),
                    Ok(None) | Err(_) => Err(error.into()),
                };
            }
        }
    }
    Err(LogError::Contradiction { object: folder.uri_of(&name) })
}

/// Reads back an entry that this write created, and writes it again if the store has other bytes: an unreadable log loses
/// the run. Overwriting is safe, since this write created the object and no other writer has the number.
async fn read_back(folder: &Folder, name: &str, body: &Bytes) -> Result<(), LogError> {
    for _ in 0..folder.retry_policy().attempts.max(1) {
        match folder.get(name, entry::MOST_BYTES).await? {
            Some(found) if found == body => return Ok(()),
            _ => {
                tracing::warn!(
                    entry = folder.uri_of(name),
                    "the store has other bytes than were put: putting it again"
                );
                folder.replace(name, body.clone()).await?;
            }
        }
    }
    Err(LogError::Contradiction { object: folder.uri_of(name) })
}
