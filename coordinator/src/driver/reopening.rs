//! Opens a run again after one of its tasks has panicked.
//!
//! A panic of a recorder, replica task or output writer ends the run's term: without that task, the run would wait for ever.
//! The workers end, and after a pause the run is opened again under a new epoch, from its newest checkpoint. The pause grows
//! while terms end in panics soon after their start. Watchers stay connected; they and `status` see the reason and the pause.

use std::time::{Duration, Instant};

use whimbrel_core::RunEvent;
use whimbrel_plan::RunId;
use whimbrel_proto::{v1, with_causes};
use whimbrel_store::LogError;

use super::{
    Driver,
    input::Input,
    tasks::{RECORDER, TermPanic},
};
use crate::{
    events,
    open::{OpenedRun, reopen::reopen, submit_error::SubmitError},
    panics,
};

/// The pause before a run is opened again the first time; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After a term that lasted this long, the pauses begin at [`FIRST_PAUSE`] again. Longer than the longest pause.
const STABLE: Duration = Duration::from_secs(600);

/// A run whose term has ended in a panic, until it is opened again.
#[derive(Debug)]
pub(crate) struct Reopening {
    /// When the next attempt is due; `None` while one is in progress.
    due: Option<Instant>,
    /// The status detail: the reason, and when the run is opened again.
    pub(crate) detail: String,
    /// The event that ends watchers' streams if the run is not opened again.
    pub(super) end: Option<v1::EndedEvent>,
}

/// The pause after so many failures in a row, at least 1.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// How many terms in a row have failed, after one more that lasted for `age`.
fn failures_in_a_row(before: u32, age: Duration) -> u32 {
    if age >= STABLE { 1 } else { before + 1 }
}

impl Driver {
    /// Ends the term of a run, one of whose tasks panicked, and schedules the run to be opened again.
    pub(super) fn term_panicked(&mut self, TermPanic { run, epoch, task, message }: TermPanic) {
        tracing::error!(%run, epoch, task, message, "a task of a run panicked");
        let has_ended = self.core.view(&run).is_none_or(|view| view.phase.has_ended());
        let Some(hosted) = self.hosted.get_mut(&run).filter(|hosted| hosted.epoch == epoch) else { return };
        // While the recorder only waits for replicas, it reports the replica whose task has ended.
        let is_recorder_waiting = hosted.is_finishing_replicas && task != RECORDER;
        if has_ended || hosted.reopening.is_some() || is_recorder_waiting {
            return;
        }
        let reason = format!("the {task} of the run panicked: {message}");
        hosted.failures = failures_in_a_row(hosted.failures, hosted.age());
        hosted.reopening = Some(Reopening { due: None, detail: String::new(), end: None });
        self.run_event(run.clone(), RunEvent::TermLost { reason: reason.clone() });
        self.schedule_reopening(&run, &reason);
    }

    /// Schedules the next attempt to open a run again, and reports it to watchers.
    fn schedule_reopening(&mut self, run: &RunId, reason: &str) {
        let Some(hosted) = self.hosted.get_mut(run) else { return };
        let Some(reopening) = &mut hosted.reopening else { return };
        let pause = pause(hosted.failures);
        reopening.due = Some(Instant::now() + pause);
        reopening.detail = format!("{reason}; the run is opened again in {} s", pause.as_secs());
        let detail = reopening.detail.clone();
        hosted.announce(events::warning(detail.clone()));
        hosted.announce(events::reopening(detail));
    }

    /// Starts the attempts that are due. Called at every tick.
    pub(super) fn start_due_reopenings(&mut self) {
        let now = Instant::now();
        for (run, hosted) in &mut self.hosted {
            let Some(reopening) = &mut hosted.reopening else { continue };
            // Not while a client's request resumes the run.
            if reopening.due.is_none_or(|due| due > now) || !self.openings.begin(run) {
                continue;
            }
            reopening.due = None;
            let (store, name, inputs) = (self.store.clone(), self.name.clone(), self.inputs.clone());
            let (run, epoch, shutdown) = (run.clone(), hosted.epoch, self.shutting_down.clone());
            self.tasks.spawn(async move {
                let attempt = panics::catch(reopen(&store, &run, epoch, &name));
                let attempt = shutdown.run_until_cancelled(attempt).await;
                let result = attempt
                    .unwrap_or(Ok(Err(SubmitError::ShuttingDown)))
                    .unwrap_or_else(|message| Err(SubmitError::Panicked(message)));
                inputs.send(Input::Reopened(run, Box::new(result)));
            });
        }
    }

    /// Takes the result of an attempt: hosts the run, schedules the next attempt, or gives the run up.
    pub(super) fn reopened(&mut self, run: RunId, result: Result<OpenedRun, SubmitError>) {
        match result.and_then(|opened| self.host(opened)) {
            Ok(_) => {}
            Err(error) if may_pass(&error) => {
                if let Some(hosted) = self.hosted.get_mut(&run) {
                    hosted.failures += 1;
                }
                let reason = format!("the run could not be opened again: {}", with_causes(&error));
                self.schedule_reopening(&run, &reason);
            }
            Err(error) => self.give_up_reopening(&run, &error),
        }
        self.opening_ended(Some(run));
    }

    /// Ends the hosting of a run that cannot be opened again: watchers get the end, and the run is archived.
    fn give_up_reopening(&mut self, run: &RunId, error: &SubmitError) {
        let Some(mut status) = self.status(run) else { return };
        let reopening = self.hosted.get_mut(run).and_then(|hosted| hosted.reopening.take());
        let Some(Reopening { end: Some(mut end), .. }) = reopening else { return };
        let Some(mut hosted) = self.hosted.remove(run) else { return };
        end.reason = format!("{}; the run is not opened again: {}", end.reason, with_causes(error));
        if let SubmitError::Over { ended, .. } = error {
            events::record_outcome(&mut end, ended);
        }
        (status.phase, status.detail, status.step) = (end.phase, end.reason.clone(), end.step);
        self.archive.insert(run.clone(), status);
        hosted.announce(v1::run_event::Event::Ended(end));
        hosted.close();
    }

    /// On a shutdown, leaves runs that wait to be opened again to the next coordinator.
    pub(super) fn give_up_all_reopenings(&mut self) {
        let waiting = self.hosted.iter().filter(|(_, hosted)| hosted.reopening.is_some());
        for run in waiting.map(|(run, _)| run.clone()).collect::<Vec<_>>() {
            self.give_up_reopening(&run, &SubmitError::ShuttingDown);
        }
    }
}

/// Whether a later attempt to open a run again may succeed.
fn may_pass(error: &SubmitError) -> bool {
    matches!(
        error,
        SubmitError::Panicked(_)
            | SubmitError::Log(LogError::Store(_))
            | SubmitError::Term(_)
            | SubmitError::Append(_)
            | SubmitError::NotRecovered(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes_and_start_again_after_a_stable_term() {
        let pauses: Vec<_> = (1..=10).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
        assert_eq!(failures_in_a_row(4, Duration::from_secs(599)), 5);
        assert_eq!(failures_in_a_row(4, STABLE), 1);
    }
}
