//! One run's directory: [`RunDir`]. It is opened by its URI, or found in a [`Store`].

use std::{fs, future::ready, time::Duration};

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use whimbrel_plan::RunId;

use super::{
    entry,
    run_log::{LogError, RunLog},
};
use crate::{
    location::{Environment, IfMissing, Location, OpenError, Store, redacted},
    object::{Folder, StoreError},
    uri,
};

/// Runs looked up concurrently.
const CONCURRENCY: usize = 16;

/// The directory `<store>/<run-id>/`. Its content is the run: to copy the directory is to move the run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RunDir {
    id: RunId,
    folder: Folder,
}

impl Store {
    /// The directory of a run, which may or may not exist.
    pub fn run(&self, id: &RunId) -> RunDir {
        RunDir { id: id.clone(), folder: self.folder().inside(id.as_str()) }
    }

    /// The runs in this store, by name: the folders that hold the first entry of a log.
    pub async fn runs(&self) -> Result<Vec<RunId>, StoreError> {
        let names = self.folder().folders().await?;
        let ids: Vec<RunId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let looked_up = ids.into_iter().map(|id| async move {
            let first = self.run(&id).folder().head(&entry::name(0)).await?;
            Ok(first.map(|_| id))
        });
        let found = stream::iter(looked_up).buffered(CONCURRENCY);
        let mut runs: Vec<RunId> = found.try_filter_map(|run| ready(Ok(run))).try_collect().await?;
        runs.sort();
        Ok(runs)
    }
}

impl RunDir {
    /// The run's name.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// The directory's absolute URI, which [`open_run`] takes.
    pub fn uri(&self) -> &str {
        self.folder.uri()
    }

    /// The URI of the run's checkpoint after `step`, which [`open_run`] takes.
    pub fn checkpoint_uri(&self, step: u64) -> String {
        uri::at_step(self.uri(), step)
    }

    /// The URI of the store that the run is in.
    pub fn store_uri(&self) -> String {
        uri::parent(self.uri()).map_or_else(|| self.uri().to_owned(), |(store, _)| store)
    }

    /// The deadline of an attempt to put a pack of so many bytes: longer, the slower the store was lately. An attempt that
    /// reaches it counts as stuck, and is made again with fewer concurrent transfers.
    pub fn deadline_of_pack(&self, bytes: u64) -> Duration {
        self.folder.deadline_of_put(bytes)
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Reads the whole run log.
    pub fn run_log(&self) -> BoxFuture<'_, Result<RunLog, LogError>> {
        Box::pin(RunLog::read(&self.folder))
    }
}

/// Opens a run by its URI, `<store>/<run-id>` or `<store>/<run-id>@<step>`, and returns the step if the URI has one. The
/// options of an `s3://` URI stand at the end, after a `?`. A store that is a folder must exist. Whether the run exists,
/// [`RunDir::run_log`] tells.
pub fn open_run(uri: &str) -> Result<(RunDir, Option<u64>), OpenError> {
    open_run_in(uri, &Environment::of_process())
}

/// [Opens](open_run) a run with the credentials of the environment given.
pub fn open_run_in(uri: &str, environment: &Environment) -> Result<(RunDir, Option<u64>), OpenError> {
    let (store, run) = uri::parent(uri).unwrap_or_default();
    let (run, step) = match run.split_once('@') {
        Some((run, step)) => {
            let wrong = |_| OpenError::Step { uri: redacted(uri), step: step.to_owned() };
            (run, Some(step.parse().map_err(wrong)?))
        }
        None => (run, None),
    };
    if matches!(run, "." | "..")
        && let Ok(folder) = fs::canonicalize(format!("{store}/{run}"))
        && let Some(folder) = folder.to_str()
    {
        // A relative path: the folder's own name is the run's.
        return Ok((open_run_in(folder, environment)?.0, step));
    }
    let id = run.parse().map_err(|source| OpenError::Run { uri: redacted(uri), source })?;
    let store = Store::open_at(Location::parse(&store)?, environment, IfMissing::Refuse)?;
    Ok((store.run(&id), step))
}
