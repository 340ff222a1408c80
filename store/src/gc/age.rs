//! How old objects are, by the store's own clock.

use std::time::{Duration, SystemTime};

use object_store::ObjectMeta;

use crate::{
    log::{entry, run_dir::RunDir, run_log::RunLog},
    object::folder::StoreError,
};

/// Tells which objects are older than a grace.
#[derive(Debug)]
pub(crate) struct Ages {
    now: Option<ObjectMeta>,
    grace: Duration,
}

impl Ages {
    /// The log's last entry stands for now: it is at most too old, which keeps more.
    pub(crate) async fn of(run: &RunDir, run_log: &RunLog, grace: Duration) -> Result<Self, StoreError> {
        let last = run_log.next_number().saturating_sub(1);
        Ok(Self { now: run.folder().head(&entry::name(last)).await?, grace })
    }

    pub(crate) fn is_past_grace(&self, object: &ObjectMeta) -> bool {
        let age = self.now.as_ref().map(|now| now.last_modified - object.last_modified);
        age.and_then(|age| age.to_std().ok()).is_some_and(|age| age >= self.grace)
    }

    /// The same for a file of a local folder.
    pub(crate) fn is_file_past_grace(&self, modified: SystemTime) -> bool {
        let age = self.now.as_ref().map(|now| SystemTime::from(now.last_modified).duration_since(modified));
        age.and_then(Result::ok).is_some_and(|age| age >= self.grace)
    }
}
