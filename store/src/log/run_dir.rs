//! One run's directory in a store.

use std::{fs, time::Duration};

use whimbrel_plan::RunId;

use crate::{
    location::{
        Environment, Location, OpenError,
        store::{Missing, Store},
        uri, without_secrets,
    },
    log::run_log::{CheckpointInfo, LogError, RunLog},
    object::folder::Folder,
};

/// The directory `<store>/<run-id>/`. What it holds is the run: copy it and you have moved the run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RunDir {
    id: RunId,
    folder: Folder,
}

impl RunDir {
    pub(crate) fn new(id: RunId, folder: Folder) -> Self {
        Self { id, folder }
    }

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

    /// How long putting a pack of so many bytes may take at present until it counts as stuck, and is begun again with
    /// fewer beside it: the slower the store has been, the longer.
    pub fn deadline_of_pack(&self, bytes: u64) -> Duration {
        self.folder.deadline_of_put(bytes)
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Reads the whole run log.
    pub async fn run_log(&self) -> Result<RunLog, LogError> {
        RunLog::read(&self.folder).await
    }

    /// The committed checkpoints, quarantined ones included and collected ones not, newest last.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointInfo>, LogError> {
        Ok(self.run_log().await?.all_checkpoints())
    }
}

/// Opens a run by its URI, `<store>/<run-id>`, and the step of `<store>/<run-id>@<step>` if there is one; the options of
/// an `s3://` URI stand behind all that, after a `?`. A store that is a folder must exist; whether the run does,
/// [`RunDir::history`] tells.
pub fn open_run(uri: &str) -> Result<(RunDir, Option<u64>), OpenError> {
    open_run_in(uri, &Environment::of_process())
}

/// The same with the credentials of an environment that need not be this process's.
pub fn open_run_in(uri: &str, environment: &Environment) -> Result<(RunDir, Option<u64>), OpenError> {
    let (store, run) = uri::parent(uri).unwrap_or_default();
    let told = || without_secrets(uri);
    let (run, step) = match run.split_once('@') {
        Some((run, step)) => {
            let wrong = |_| OpenError::Step { uri: told(), step: step.to_owned() };
            (run, Some(step.parse().map_err(wrong)?))
        }
        None => (run, None),
    };
    if matches!(run, "." | "..")
        && let Ok(folder) = fs::canonicalize(format!("{store}/{run}"))
        && let Some(folder) = folder.to_str()
    {
        // A folder has a name, whatever it was called by.
        return Ok((open_run_in(folder, environment)?.0, step));
    }
    let id = run.parse().map_err(|source| OpenError::Run { uri: told(), source })?;
    Ok((Store::open_at(Location::parse(&store)?, environment, Missing::Refuse)?.run(&id), step))
}
