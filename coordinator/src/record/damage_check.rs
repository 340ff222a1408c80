//! Whether a checkpoint that a worker could not read is damaged.

use std::time::Duration;

use tokio::time::sleep;
use whimbrel_proto::with_causes;
use whimbrel_state::Pack;
use whimbrel_store::{Limits, RestoreError, RunLog, Sources, read_state};

/// A checkpoint that a store does not give is read again so many times, so long after each failure, on top of the store's
/// own patience.
const ATTEMPTS: u32 = 3;
const AGAIN: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every byte is there, in one store or another; what the run's directory lacked was put back.
    Whole,
    /// No store has it whole, and these packs may be bad.
    Damaged(Vec<Pack>),
    /// A store that may have it whole does not answer, and why.
    Unknown(String),
}

/// Reads a checkpoint, whose manifest is `name`, from all of the run's stores. Which of its packs is bad is found out so:
/// the worker that noticed names one at most.
pub(crate) async fn examine(sources: &Sources, run_log: &RunLog, name: &str) -> Verdict {
    let mut attempts = 0;
    loop {
        let verdict = read(sources, run_log, name).await;
        attempts += 1;
        match &verdict {
            Verdict::Unknown(error) if attempts < ATTEMPTS => {
                let run = sources.primary().uri();
                tracing::warn!(run, manifest = name, error, "a checkpoint cannot be examined; trying again");
            }
            _ => return verdict,
        }
        sleep(AGAIN).await;
    }
}

async fn read(sources: &Sources, run_log: &RunLog, name: &str) -> Verdict {
    let manifest = match sources.manifest(name).await {
        Ok(manifest) => manifest,
        Err(error) if error.is_damage() => return Verdict::Damaged(Vec::new()),
        Err(error) => return Verdict::Unknown(with_causes(&error)),
    };
    let is_what_the_log_says =
        run_log.all_checkpoints().iter().any(|known| known.manifest == name && known.step == manifest.step);
    match read_state(sources, &manifest, 0..u64::MAX, &Limits::default(), |_| {}).await {
        Ok(_) if is_what_the_log_says => Verdict::Whole,
        Err(RestoreError::Store(error)) => Verdict::Unknown(with_causes(&error)),
        Ok(_) | Err(_) => Verdict::Damaged(manifest.packs),
    }
}
