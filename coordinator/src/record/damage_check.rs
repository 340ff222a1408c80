//! Reads a checkpoint that a worker reports as damaged, and says whether it is.
//!
//! The recorder calls it before it quarantines a checkpoint, since a quarantine is for good.

use std::time::Duration;

use tokio::time::sleep;
use whimbrel_proto::with_causes;
use whimbrel_state::Pack;
use whimbrel_store::{Limits, RestoreError, RunLog, Sources, read_state};

/// How often a checkpoint is read while a store does not answer. Each attempt has the store's own retries.
const ATTEMPTS: u32 = 3;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(3);

/// The result of a damage check.
#[derive(Debug)]
pub(crate) enum DamageCheck {
    /// The run's stores together have every byte. What the run's directory lacked is there again.
    Whole,
    /// No store has every byte. These packs may be damaged; empty if the manifest itself is.
    Damaged(Vec<Pack>),
    /// A store that may have every byte does not answer; the text says why.
    Unknown(String),
}

/// Reads the checkpoint of the manifest `name` from all of the run's stores. Reads every pack: the worker that reported the
/// damage names one pack at most.
pub(crate) async fn check_for_damage(sources: &Sources, run_log: &RunLog, name: &str) -> DamageCheck {
    let mut attempts = 0;
    loop {
        let result = read(sources, run_log, name).await;
        attempts += 1;
        match &result {
            DamageCheck::Unknown(error) if attempts < ATTEMPTS => {
                let run = sources.primary().uri();
                tracing::warn!(
                    run,
                    manifest = name,
                    error,
                    "cannot check a checkpoint for damage; trying again"
                );
            }
            _ => return result,
        }
        sleep(PAUSE).await;
    }
}

async fn read(sources: &Sources, run_log: &RunLog, name: &str) -> DamageCheck {
    let manifest = match sources.manifest(name).await {
        Ok(manifest) => manifest,
        Err(error) if error.is_damage() => return DamageCheck::Damaged(Vec::new()),
        Err(error) => return DamageCheck::Unknown(with_causes(&error)),
    };
    let is_in_log = run_log.checkpoint(name).is_some_and(|known| known.step == manifest.step);
    match read_state(sources, &manifest, 0..u64::MAX, &Limits::default(), |_| {}).await {
        Ok(_) if is_in_log => DamageCheck::Whole,
        Err(RestoreError::Store(error)) => DamageCheck::Unknown(with_causes(&error)),
        Ok(_) | Err(_) => DamageCheck::Damaged(manifest.packs),
    }
}
