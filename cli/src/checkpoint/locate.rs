//! The run, and the checkpoint of it, that an argument names.

use std::{path::Path, time::Duration};

use tokio::time::timeout;
use whimbrel_plan::RunId;
use whimbrel_state::{Hash, Manifest};
use whimbrel_store::{CheckpointInfo, LogError, RunDir, RunLog, Store, open_run, shell, uri::inside};

use crate::{args::checkpoint::Options, config::ClientConfig, exit::Failure};

/// A store with many runs in it is not looked through for longer.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// So many runs are named.
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

/// A checkpoint, with all that is known of it before its packs are read.
pub(super) struct Found {
    pub(super) run: RunDir,
    pub(super) run_log: RunLog,
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

/// The run's log. Where there is none, the error names the runs that are there.
pub(super) async fn history_of(run: &RunDir) -> Result<RunLog, Failure> {
    let error = match run.run_log().await {
        Err(error @ LogError::NoRun { .. }) => error,
        read => return Ok(read?),
    };
    let failure = Failure::from(error);
    let near = timeout(LOOK_AROUND, runs_near(run)).await.ok().flatten();
    Err(near.into_iter().fold(failure, Failure::hint))
}

/// The runs that may have been meant: those inside the place, which then is a store, or those beside it.
async fn runs_near(run: &RunDir) -> Option<String> {
    for place in [run.uri().to_owned(), run.store_uri()] {
        let Ok(store) = Store::open_existing(&place) else { continue };
        let runs: Vec<String> = store.runs().await.ok()?.iter().map(RunId::to_string).collect();
        if !runs.is_empty() {
            let more = if runs.len() > NAMED { ", …" } else { "" };
            let some = runs.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            return Some(format!("the runs in {place} are {some}{more}"));
        }
    }
    None
}

/// The checkpoint that was named, or the newest good one, with its manifest.
pub(super) async fn find(run: &str, options: &Options, config: &ClientConfig) -> Result<Found, Failure> {
    let (run, step) = locate(run, options, config)?;
    let run_log = history_of(&run).await?;
    let found = match step {
        Some(step) => run_log.all_checkpoints().into_iter().rfind(|checkpoint| checkpoint.step == step),
        None => run_log.checkpoints().pop(),
    };
    let Some(checkpoint) = found else {
        let error = LocateError::None { run: run.id().to_string(), step };
        return Err(Failure::bad_input(error)
            .hint(format!("`whimbrel checkpoint list {}` shows those there are", shell::word(run.uri()))));
    };
    let manifest = run.manifest(&checkpoint.manifest).await?;
    Ok(Found { run, run_log, checkpoint, manifest })
}

/// The digest of the checkpoint's state that the run left on record: with the checkpoint, or with its end.
pub(super) fn recorded_state(run_log: &RunLog, checkpoint: &CheckpointInfo) -> Option<Hash> {
    let at_the_end = || run_log.ended().filter(|ended| ended.step == checkpoint.step)?.state;
    checkpoint.state.or_else(at_the_end)
}
