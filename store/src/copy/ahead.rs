//! Whether a copy of a run is ahead of another directory of the same run, and which checkpoints only the copy has.

use crate::{
    copy::run_outcome,
    log::{CheckpointInfo, RunLog},
};

/// Whether [`recover_from`](crate::recover_from) has something to recover from a directory with the log `copy` to one
/// with the log `here`.
pub fn is_ahead(copy: &RunLog, here: &RunLog) -> bool {
    !newer(copy, here).is_empty() || run_outcome::missing(copy, here).is_some()
}

/// The checkpoints of `copy` that are newer than the newest one of `here`, newest last. Those that are quarantined in
/// `here` are not among them.
pub fn newer(copy: &RunLog, here: &RunLog) -> Vec<CheckpointInfo> {
    let newest = here.newest_checkpoint().map(|checkpoint| checkpoint.origin);
    let is_quarantined = |checkpoint: &CheckpointInfo| {
        here.checkpoint(&checkpoint.manifest).is_some_and(|other| other.quarantined.is_some())
    };
    let mut newer = copy.checkpoints();
    newer.retain(|checkpoint| Some(checkpoint.origin) > newest && !is_quarantined(checkpoint));
    newer
}
