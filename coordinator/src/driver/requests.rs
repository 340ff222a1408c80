//! What clients ask of the driver about runs: statuses, events, output, and to stop or cancel.

use std::iter;

use tokio::sync::broadcast;
use tonic::Status;
use whimbrel_core::RunEvent;
use whimbrel_plan::RunId;
use whimbrel_proto::v1;

use super::{Driver, hosted_run::HostedRun, input::Watched, node_name};
use crate::{events, record::output_writer::OutputReader};

impl Driver {
    /// Passes a client's request to stop or cancel a run on to the core, if the run is hosted here and has not ended. A run that
    /// is to be opened again gets it then.
    pub(super) fn request(&mut self, run: &RunId, event: RunEvent) -> Result<(), Status> {
        let (Some(hosted), Some(view)) = (self.hosted.get_mut(run), self.core.view(run)) else {
            return Err(match self.archive.get(run) {
                Some(status) if status.detail.is_empty() => {
                    Status::failed_precondition(format!("run {run} is not under way"))
                }
                Some(v1::RunStatus { detail, .. }) => {
                    Status::failed_precondition(format!("run {run} is not under way here: {detail}"))
                }
                None => Status::not_found(format!("there is no run {run} here")),
            });
        };
        let is_reopening = hosted.reopening.is_some();
        if view.phase.has_ended() && !is_reopening {
            return Err(Status::failed_precondition(format!("run {run} has ended already")));
        }
        if hosted.requested != Some(RunEvent::CancelRequested) {
            hosted.requested = Some(event.clone());
        }
        if !is_reopening {
            self.run_event(run.clone(), event);
        }
        Ok(())
    }

    pub(super) fn status(&self, run: &RunId) -> Option<v1::RunStatus> {
        match (self.hosted.get(run), self.core.view(run)) {
            (Some(hosted), Some(view)) => {
                Some(events::run_status(&hosted.facts(), view, |node| node_name(&self.nodes, node)))
            }
            _ => self.archive.get(run).cloned(),
        }
    }

    pub(super) fn statuses(&self) -> Vec<v1::RunStatus> {
        // The core may still know a run that is archived.
        let views = self.core.views().into_iter().map(|(id, _)| id);
        let hosted = views.filter(|id| self.hosted.contains_key(id));
        self.archive.keys().cloned().chain(hosted).filter_map(|id| self.status(&id)).collect()
    }

    /// The run's status and backlog, and the events that follow; no events if the run is not hosted here. `None` if the run is
    /// not known.
    pub(super) fn watch(&mut self, run: &RunId) -> Option<Watched> {
        let status = v1::RunEvent { event: Some(v1::run_event::Event::Status(self.status(run)?)) };
        let (backlog, events) = match self.hosted.get_mut(run) {
            Some(HostedRun { watchers, .. }) => watchers.watch(),
            None => (Vec::new(), broadcast::channel(1).1),
        };
        Some((iter::once(status).chain(backlog).collect(), events))
    }

    /// A reader of the run's output; `None` if the run is not known.
    pub(super) fn logs(&mut self, run: &RunId) -> Option<OutputReader> {
        match self.hosted.get_mut(run) {
            Some(hosted) => Some(hosted.output.reader()),
            None if self.archive.contains_key(run) => Some(OutputReader::of_archived(self.store.run(run))),
            None => None,
        }
    }
}
