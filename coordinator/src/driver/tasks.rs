//! The driver's tasks, and which run each belongs to.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};
use whimbrel_plan::RunId;

use crate::panics;

/// What the recorder is called when it panics.
pub(super) const RECORDER: &str = "recorder";

/// Every task that the driver has started.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    /// The tasks of terms.
    of_terms: HashMap<Id, TermTask>,
}

/// A task of a run's term.
#[derive(Debug)]
struct TermTask {
    run: RunId,
    epoch: u64,
    name: &'static str,
}

/// A task of a run's term panicked.
#[derive(Debug)]
pub(super) struct TermPanic {
    pub(super) run: RunId,
    pub(super) epoch: u64,
    /// The task's name.
    pub(super) task: &'static str,
    pub(super) message: String,
}

impl Tasks {
    /// Starts a task that reports its own panics.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(task);
    }

    /// Starts a task of a run's term; `name` is for people.
    pub(super) fn spawn_for_term(
        &mut self,
        run: &RunId,
        epoch: u64,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.set.spawn(task).id();
        self.of_terms.insert(id, TermTask { run: run.clone(), epoch, name });
    }

    /// Waits for a task to end. `None` if there is none; else the panic, if the task belongs to a term and panicked.
    pub(super) async fn join_next(&mut self) -> Option<Option<TermPanic>> {
        let (id, error) = match self.set.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let task = self.of_terms.remove(&id);
        let Some(payload) = error.and_then(|error| error.try_into_panic().ok()) else { return Some(None) };
        let message = panics::message(&*payload);
        let Some(TermTask { run, epoch, name }) = task else {
            tracing::error!(message, "a task of the coordinator panicked");
            return Some(None);
        };
        Some(Some(TermPanic { run, epoch, task: name, message }))
    }
}
