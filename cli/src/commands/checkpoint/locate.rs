//! Finds the run, and the checkpoint of it, that an argument names.

use std::{path::Path, time::Duration};

use tokio::time::timeout;
use whimbrel_plan::RunId;
use whimbrel_state::Manifest;
use whimbrel_store::{CheckpointInfo, LogError, RunDir, RunLog, Store, open_run, shell, uri::inside};

use crate::{
    args::checkpoint::RunOptions, config::ClientConfig, exit::Failure, output::checkpoint::list::Recorded,
};

/// Deadline of listing a store for the runs that may have been meant.
const LISTING: Duration = Duration::from_secs(5);
/// The hint names at most this many runs.
const NAMED: usize = 8;

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

/// A checkpoint that was found, before its packs are read.
pub(super) struct Found {
    pub(super) run: RunDir,
    pub(super) run_log: RunLog,
    pub(super) checkpoint: Recorded,
    pub(super) manifest: Manifest,
}

impl Found {
    /// The URI of the checkpoint.
    pub(super) fn uri(&self) -> String {
        self.run.checkpoint_uri(self.checkpoint.info.step)
    }
}

/// The directory of the named run, and the step if one is named. Nothing is read.
pub(super) fn locate(
    run: &str,
    options: &RunOptions,
    config: &ClientConfig,
) -> Result<(RunDir, Option<u64>), Failure> {
    let store = options.store.as_deref().or(config.store.as_deref());
    let is_location = run.contains('/') || Path::new(run.split('@').next().unwrap_or(run)).is_dir();
    let opened = match store {
        _ if is_location => open_run(run)?,
        Some(store) => open_run(&inside(store, run))?,
        None => {
            let error = LocateError::NoStore { run: run.to_owned() };
            return Err(Failure::bad_input(error)
                .hint(format!("give --store URI, or the path or URI of the run: runs/{run}")));
        }
    };
    Ok(opened)
}

/// The directory of the named run. `command` is the command or flag that takes no step, for the error.
pub(super) fn locate_run(
    run: &str,
    command: &'static str,
    options: &RunOptions,
    config: &ClientConfig,
) -> Result<RunDir, Failure> {
    match locate(run, options, config)? {
        (run, None) => Ok(run),
        (_, Some(_)) => Err(Failure::bad_input(LocateError::Step { uri: run.to_owned(), command })),
    }
}

/// Reads the run log. If there is none, the error names the runs that are in the store.
pub(super) async fn read_log(run: &RunDir) -> Result<RunLog, Failure> {
    let error = match run.run_log().await {
        Err(error @ LogError::NoRun { .. }) => error,
        read => return Ok(read?),
    };
    let failure = Failure::from(error);
    let near = timeout(LISTING, runs_near(run)).await.ok().flatten();
    Err(near.into_iter().fold(failure, Failure::hint))
}

/// The runs that may have been meant: those in the directory, if it is a store, or else those beside it.
async fn runs_near(run: &RunDir) -> Option<String> {
    for location in [run.uri().to_owned(), run.store_uri()] {
        let Ok(store) = Store::open_existing(&location) else { continue };
        let runs: Vec<String> = store.runs().await.ok()?.iter().map(RunId::to_string).collect();
        if !runs.is_empty() {
            let more = if runs.len() > NAMED { ", …" } else { "" };
            let some = runs.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            return Some(format!("the runs in {location} are {some}{more}"));
        }
    }
    None
}

/// Finds the checkpoint that is named, or the newest good one, and reads its manifest.
pub(super) async fn find(run: &str, options: &RunOptions, config: &ClientConfig) -> Result<Found, Failure> {
    let (run, step) = locate(run, options, config)?;
    let run_log = read_log(&run).await?;
    let found = match step {
        Some(step) => run_log.all_checkpoints().into_iter().rfind(|checkpoint| checkpoint.step == step),
        None => run_log.newest_checkpoint().cloned(),
    };
    let Some(checkpoint) = found else { return Err(no_checkpoint(&run, step)) };
    let manifest = run.manifest(&checkpoint.manifest).await?;
    let checkpoint = recorded(&run_log, checkpoint);
    Ok(Found { run, run_log, checkpoint, manifest })
}

/// The error that a run has no checkpoint, or none after this step.
pub(super) fn no_checkpoint(run: &RunDir, step: Option<u64>) -> Failure {
    let error = LocateError::None { run: run.id().to_string(), step };
    Failure::bad_input(error)
        .hint(format!("`whimbrel checkpoint list {}` lists its checkpoints", shell::word(run.uri())))
}

/// The checkpoint with the digest of its state that the run recorded: in the checkpoint's log entry, or in that of the
/// run's end.
pub(super) fn recorded(run_log: &RunLog, info: CheckpointInfo) -> Recorded {
    let at_the_end = || run_log.ended().filter(|ended| ended.step == info.step)?.state;
    let state = info.state.or_else(at_the_end);
    Recorded { info, state }
}
