//! The run, and the checkpoint of it, that an argument names.

use std::path::Path;

use whimbrel_state::{Hash, Manifest};
use whimbrel_store::{CheckpointInfo, History, RunDir, open_run, shell, uri::inside};

use crate::{args::checkpoint::Options, config::ClientConfig, exit::Failure};

/// A run or checkpoint that cannot be found.
#[derive(Debug, thiserror::Error)]
enum LocateError {
    #[error("{run:?} is the name of a run, and no store is named to look for it in")]
    NoStore { run: String },
    #[error("run {run} has no checkpoint{}", step.map_or(" yet".into(), |step| format!(" after step {step}")))]
    None { run: String, step: Option<u64> },
    #[error("{uri:?} names a step, and {command} is about the whole run; leave the @ out")]
    Step { uri: String, command: &'static str },
}

/// A checkpoint, with all that is known of it before its packs are read.
pub(super) struct Found {
    pub(super) run: RunDir,
    pub(super) history: History,
    pub(super) checkpoint: CheckpointInfo,
    pub(super) manifest: Manifest,
}

impl Found {
    /// The URI of the checkpoint.
    pub(super) fn uri(&self) -> String {
        self.run.checkpoint_uri(self.checkpoint.step)
    }
}

/// The run's directory, and the step that was named.
pub(super) fn locate(
    run: &str,
    options: &Options,
    config: &ClientConfig,
) -> Result<(RunDir, Option<u64>), Failure> {
    let store = options.store.as_deref().or(config.store.as_deref());
    let by_itself = run.contains('/') || Path::new(run.split('@').next().unwrap_or(run)).is_dir();
    let opened = match store {
        _ if by_itself => open_run(run)?,
        Some(store) => open_run(&inside(store, run))?,
        None => {
            let error = LocateError::NoStore { run: run.to_owned() };
            return Err(Failure::bad_input(error)
                .hint(format!("give --store URI, or the path or URI of the run: runs/{run}")));
        }
    };
    Ok(opened)
}

/// The run's directory, where no step may be named.
pub(super) fn locate_run(
    run: &str,
    command: &'static str,
    options: &Options,
    config: &ClientConfig,
) -> Result<RunDir, Failure> {
    match locate(run, options, config)? {
        (run, None) => Ok(run),
        (_, Some(_)) => Err(Failure::bad_input(LocateError::Step { uri: run.to_owned(), command })),
    }
}

/// The checkpoint that was named, or the newest good one, with its manifest.
pub(super) async fn find(run: &str, options: &Options, config: &ClientConfig) -> Result<Found, Failure> {
    let (run, step) = locate(run, options, config)?;
    let history = run.history().await?;
    let found = match step {
        Some(step) => history.all_checkpoints().into_iter().rfind(|checkpoint| checkpoint.step == step),
        None => history.checkpoints().pop(),
    };
    let Some(checkpoint) = found else {
        let error = LocateError::None { run: run.id().to_string(), step };
        return Err(Failure::bad_input(error)
            .hint(format!("`whimbrel checkpoint list {}` shows those there are", shell::word(run.uri()))));
    };
    let manifest = run.manifest(&checkpoint.manifest).await?;
    Ok(Found { run, history, checkpoint, manifest })
}

/// The digest of the checkpoint's state that the run left on record: with the checkpoint, or with its end.
pub(super) fn recorded_state(history: &History, checkpoint: &CheckpointInfo) -> Option<Hash> {
    let at_the_end = || history.ended().filter(|ended| ended.step == checkpoint.step)?.state;
    checkpoint.state.or_else(at_the_end)
}
