//! How a run comes to its end: finished, failed, cancelled, stopped, or let go of.

use std::time::Duration;

use whimbrel_plan::WorkerId;

use crate::{
    command::{Command, End, Notice, Outcome},
    fleet::Preparation,
    run::{Run, WorkerState},
};

/// What a run is up to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Intent {
    /// Apply the steps.
    Train,
    /// Save a checkpoint and stop.
    Stop {
        /// Whether the log is to say so.
        record: bool,
        /// Since when.
        since: Duration,
    },
    /// End at once.
    Cancel,
    /// The end is being recorded.
    Recording(End),
    /// The end is recorded, or nothing may be decided here any more.
    Ended(End),
}

impl Run {
    /// Whether no new worker is to be started.
    pub(crate) fn is_ending(&self) -> bool {
        self.intent != Intent::Train
    }

    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.intent, Intent::Stop { .. })
    }

    /// Whether it is decided how the run ends.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.intent, Intent::Recording(_) | Intent::Ended(_))
    }

    pub(crate) fn stop_requested(&mut self, now: Duration, record: bool) {
        if self.intent == Intent::Train {
            self.intent = Intent::Stop { record, since: now };
        }
    }

    pub(crate) fn cancel_requested(&mut self) {
        if !self.has_ended() {
            self.intent = Intent::Cancel;
        }
    }

    pub(crate) fn fail(&mut self, reason: String, tail: Vec<String>, out: &mut Vec<Command>) {
        self.end(Outcome::Failed, reason, tail, out);
    }

    pub(crate) fn end_recorded(&mut self, out: &mut Vec<Command>) {
        if let Intent::Recording(end) = &self.intent {
            let end = end.clone();
            self.intent = Intent::Ended(end.clone());
            self.announce_phase(out);
            self.announce(Notice::Ended(end), out);
        }
    }

    /// Nothing may be decided here any more: the workers are told to end, the log is left alone.
    pub(crate) fn term_lost(&mut self, reason: String, out: &mut Vec<Command>) {
        if !matches!(self.intent, Intent::Ended(_)) {
            self.intent = Intent::Train;
            self.end(Outcome::Released, reason, Vec::new(), out);
        }
    }

    /// Whether a run without a generation is to form one.
    pub(crate) fn may_form(&self) -> bool {
        match self.intent {
            Intent::Train => true,
            // To save what has been computed since the last checkpoint, unless that is under way or is given up.
            Intent::Stop { .. } => {
                self.held() > self.saves.committed
                    && !self.saves.under_way()
                    && self.saves.refusals < self.facts.max_failures
            }
            Intent::Cancel | Intent::Recording(_) | Intent::Ended(_) => false,
        }
    }

    /// The most steps applied to a state that a ready worker holds.
    fn held(&self) -> Option<u64> {
        let holds = |state: WorkerState| match state {
            WorkerState::Ready { holds, .. } => holds,
            _ => None,
        };
        self.workers.values().filter_map(|worker| holds(worker.state)).max()
    }

    /// Ends the run where that is due.
    pub(crate) fn come_to_an_end(&mut self, now: Duration, out: &mut Vec<Command>) {
        if self.all_is_done(out) {
            return;
        }
        match self.intent {
            Intent::Cancel => self.end(Outcome::Cancelled, "cancelled".into(), Vec::new(), out),
            Intent::Stop { record, since } => {
                let outcome = if record { Outcome::Stopped } else { Outcome::Released };
                let waiting = self.live.is_some() || self.saves.under_way() || self.may_form();
                let reason = if !waiting {
                    self.how_it_stopped()
                } else if now.saturating_sub(since) > self.timing.stop {
                    let patience = self.timing.stop.as_secs_f32();
                    format!("stopped, but no checkpoint could be saved within {patience} s")
                } else {
                    return;
                };
                self.end(outcome, reason, Vec::new(), out);
            }
            Intent::Train | Intent::Recording(_) | Intent::Ended(_) => {}
        }
    }

    /// What a stopped run has kept and what not.
    fn how_it_stopped(&self) -> String {
        let committed = self.saves.committed;
        match &self.saves.failure {
            Some(failure) if self.held() > committed => {
                format!("stopped, but the checkpoint could not be saved: {}", failure.reason)
            }
            _ if self.high > committed.unwrap_or(0) => {
                let kept = committed.unwrap_or(0);
                format!("stopped; what was computed after step {kept} is gone with the workers that held it")
            }
            _ => "stopped".into(),
        }
    }

    /// Ends the run if every member has applied the last step and the last checkpoint is committed.
    fn all_is_done(&mut self, out: &mut Vec<Command>) -> bool {
        let Some(live) = self.live.as_ref().filter(|live| live.is_complete()) else { return false };
        let Some((first, state)) = live.completed.first_key_value() else { return false };
        if let Some((other, _)) = live.completed.iter().find(|(_, other)| *other != state) {
            let reason = format!(
                "workers {first} and {other} applied the same steps and hold different bits; \
                 the trainer is not deterministic, or their machines are of different numerics classes"
            );
            self.fail(reason, Vec::new(), out);
            return true;
        }
        if self.saves.committed == Some(self.facts.steps) {
            self.end(Outcome::Finished, String::new(), Vec::new(), out);
            return true;
        }
        if self.saves.refusals >= self.facts.max_failures {
            let reason = self.saves.failure.as_ref().map_or("", |failure| failure.reason.as_str());
            self.fail(format!("the last checkpoint could not be saved: {reason}"), Vec::new(), out);
            return true;
        }
        false
    }

    fn end(&mut self, outcome: Outcome, reason: String, tail: Vec<String>, out: &mut Vec<Command>) {
        if self.has_ended() {
            return;
        }
        let state = self.live.as_ref().and_then(|live| live.completed.values().next().copied());
        let end = End {
            outcome,
            // What is not in a checkpoint is not kept.
            step: if outcome == Outcome::Failed { self.high } else { self.saves.committed.unwrap_or(0) },
            loss: self.loss,
            val_loss: self.val_loss,
            state: state.filter(|_| outcome == Outcome::Finished),
            reason,
            tail,
        };
        self.intent = Intent::Recording(end.clone());
        if outcome == Outcome::Released {
            self.end_recorded(out);
        } else {
            out.push(Command::RecordEnd { run: self.id.clone(), end });
        }
    }

    /// Has the workers of a run that has ended end too, and gives their slots back.
    pub(crate) fn clear_out(&mut self, now: Duration, out: &mut Vec<Command>) {
        let reason = match &self.intent {
            Intent::Recording(end) | Intent::Ended(end) => match end.outcome {
                Outcome::Finished => "the run is finished".to_owned(),
                _ => end.reason.clone(),
            },
            _ => return,
        };
        for (&node, preparation) in &mut self.nodes {
            if *preparation == Preparation::Running {
                *preparation = Preparation::Failed;
                // By the name that stands for `setup`.
                out.push(Command::Kill { run: self.id.clone(), node, worker: WorkerId(0) });
            }
        }
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            let (run, node) = (self.id.clone(), worker.node);
            match worker.state {
                WorkerState::Ready { .. } | WorkerState::Member => {
                    worker.state = WorkerState::Leaving { since: now };
                    out.push(Command::Leave { run, worker: id, reason: reason.clone() });
                }
                WorkerState::Starting { .. } => {
                    worker.state = WorkerState::Lost;
                    out.push(Command::Kill { run, node, worker: id });
                }
                WorkerState::Leaving { .. } | WorkerState::Lost => {}
            }
        }
        self.live = None;
        self.slots.retain(|_, slot| slot.worker.is_some());
    }

    /// Workers that were told to leave, or whose connection has ended, and whose processes have not ended in time are
    /// killed.
    pub(crate) fn kill_the_lingering(&mut self, now: Duration, out: &mut Vec<Command>) {
        for (&id, worker) in &mut self.workers {
            let told_in_vain = match worker.state {
                WorkerState::Leaving { since } => now.saturating_sub(since) > self.timing.leave,
                _ => false,
            };
            if told_in_vain || worker.kill_at.is_some_and(|at| at <= now) {
                worker.state = WorkerState::Lost;
                worker.kill_at = None;
                out.push(Command::Kill { run: self.id.clone(), node: worker.node, worker: id });
            }
        }
    }
}
