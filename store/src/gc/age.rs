//! How old objects are, by the store's own clock.
//!
//! An age is the difference of two times of the store. The time of the log's last entry counts as now, so no clock of this
//! machine is involved.

use std::time::{Duration, SystemTime};

use object_store::ObjectMeta;

use crate::{
    log::{RunDir, RunLog, entry_name},
    object::StoreError,
};

/// Tells which objects are older than a grace period.
#[derive(Debug)]
pub(crate) struct Ages {
    now: Option<ObjectMeta>,
    grace: Duration,
}

impl Ages {
    /// Ages at the time of the log's last entry. That time is past, so ages are too low at most, which keeps more.
    pub(crate) async fn of(run: &RunDir, run_log: &RunLog, grace: Duration) -> Result<Self, StoreError> {
        let last = run_log.next_number().saturating_sub(1);
        Ok(Self { now: run.folder().head(&entry_name(last)).await?, grace })
    }

    /// Whether an object is older than the grace period.
    pub(crate) fn is_past_grace(&self, object: &ObjectMeta) -> bool {
        let age = self.now.as_ref().map(|now| now.last_modified - object.last_modified);
        age.and_then(|age| age.to_std().ok()).is_some_and(|age| age >= self.grace)
    }

    /// The same for a file of a local folder.
    pub(crate) fn is_file_past_grace(&self, modified: SystemTime) -> bool {
        let age = self.now.as_ref().map(|now| SystemTime::from(now.last_modified).duration_since(modified));
        age.and_then(Result::ok).is_some_and(|age| age >= self.grace)
    }

    /// The time of the log's last entry, by the store's clock.
    pub(super) fn now(&self) -> Option<SystemTime> {
        self.now.as_ref().map(|now| now.last_modified.into())
    }

    /// Whether the grace period has passed since a [`now`](Self::now) before.
    pub(super) fn is_grace_over_since(&self, before: SystemTime) -> bool {
        let passed = self.now().and_then(|now| now.duration_since(before).ok());
        passed.is_none_or(|passed| passed >= self.grace)
    }
}
