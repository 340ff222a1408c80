//! One run's directory in a store.

use whimbrel_plan::RunId;

use crate::{
    folder::Folder,
    history::{CheckpointInfo, History, LogError},
    store::{Missing, OpenError, Store},
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

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Reads the whole run log.
    pub async fn history(&self) -> Result<History, LogError> {
        History::read(&self.folder).await
    }

    /// The committed checkpoints, quarantined ones included and collected ones not, newest last.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointInfo>, LogError> {
        Ok(self.history().await?.all_checkpoints())
    }
}

/// Opens a run by its URI, `<store>/<run-id>`, and the step of `<store>/<run-id>@<step>` if there is one. A store that
/// is a folder must exist; whether the run does, [`RunDir::history`] tells.
pub fn open_run(uri: &str) -> Result<(RunDir, Option<u64>), OpenError> {
    let trimmed = uri.trim_end_matches('/');
    let (store, run) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
    let (run, step) = match run.split_once('@') {
        Some((run, step)) => {
            let wrong = |_| OpenError::Step { uri: uri.to_owned(), step: step.to_owned() };
            (run, Some(step.parse().map_err(wrong)?))
        }
        None => (run, None),
    };
    let id = run.parse().map_err(|source| OpenError::Run { uri: uri.to_owned(), source })?;
    // What is left of "/run" and of "file:///run" is the root folder.
    let store = if store.is_empty() || store.ends_with('/') { format!("{store}/") } else { store.to_owned() };
    Ok((Store::open_with(&store, Missing::Refuse)?.run(&id), step))
}
