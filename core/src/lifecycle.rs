//! The life of a run under this coordinator: it trains until it is finished, fails, is stopped, cancelled or released.

use std::time::Duration;

use crate::{
    command::{Command, End, Notice, Outcome},
    machine::{Context, Effects, FinalState, Results},
    phase::Phase,
};

/// What the run is to do, and how it ended.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    intent: Intent,
    /// The phase last announced.
    announced: Option<(Phase, String)>,
}

/// What the run is to do.
#[derive(Clone, Debug, PartialEq)]
enum Intent {
    /// Apply the steps.
    Train,
    /// Save a checkpoint and stop.
    Stop {
        /// Whether the log records it.
        record: bool,
        since: Duration,
    },
    /// End at once.
    Cancel,
    /// The end is decided and is being recorded.
    Recording(End),
    /// The end is recorded, or this coordinator may decide nothing any more.
    Ended(End),
}

/// The run as the other machines see it, as far as its end depends on it.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) results: Results,
    /// The states after the last step, once every member of the live generation has applied it.
    pub(crate) final_state: Option<FinalState>,
    pub(crate) has_generation: bool,
    /// The most steps applied to a state that a ready worker holds.
    pub(crate) held_step: Option<u64>,
    /// Steps applied in the newest committed checkpoint.
    pub(crate) committed_step: Option<u64>,
    pub(crate) is_saving: bool,
    /// The store has refused the checkpoint that the end waits for so often that it is given up.
    pub(crate) is_save_refused: bool,
    /// Why the last checkpoint failed, unless one was committed since.
    pub(crate) save_failure: Option<String>,
}

/// Requests and answers.
impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self { intent: Intent::Train, announced: None }
    }

    /// A person wants the run stopped.
    pub(crate) fn stop_requested(&mut self, now: Duration, record: bool) {
        if self.intent == Intent::Train {
            self.intent = Intent::Stop { record, since: now };
        }
    }

    /// A person wants the run cancelled.
    pub(crate) fn cancel_requested(&mut self) {
        if !self.has_ended() {
            self.intent = Intent::Cancel;
        }
    }

    pub(crate) fn end_recorded(&mut self, cx: &Context) -> Effects {
        let mut effects = Effects::new();
        if let Intent::Recording(end) = &self.intent {
            let end = end.clone();
            self.intent = Intent::Ended(end.clone());
            if let Some(phase) = self.phase() {
                effects.append(self.announce_phase(cx, phase));
            }
            effects.announce(cx, Notice::Ended(end));
        }
        effects
    }

    /// This coordinator may decide nothing any more: the workers are told to leave, and the log is left alone.
    pub(crate) fn term_lost(&mut self, cx: &Context, status: &Status, reason: String) -> Effects {
        if matches!(self.intent, Intent::Ended(_)) {
            return Effects::new();
        }
        self.intent = Intent::Train;
        self.end(cx, status, Outcome::Released, reason, Vec::new())
    }
}

/// The end.
impl Lifecycle {
    /// Ends the run if every step is applied and the last checkpoint is committed, or if a person wants it to end.
    pub(crate) fn end_if_due(&mut self, cx: &Context, status: &Status) -> Effects {
        if let Some((outcome, reason)) = completion(cx, status) {
            return self.end(cx, status, outcome, reason, Vec::new());
        }
        match self.intent {
            Intent::Cancel => self.end(cx, status, Outcome::Cancelled, "cancelled".into(), Vec::new()),
            Intent::Stop { record, since } => {
                let outcome = if record { Outcome::Stopped } else { Outcome::Released };
                let unfinished = status.has_generation || status.is_saving || self.may_form(status);
                let reason = if !unfinished {
                    why_stopped(status)
                } else if cx.since(since) > cx.timing.stop_timeout {
                    let timeout = cx.timing.stop_timeout.as_secs_f32();
                    format!("stopped, but no checkpoint could be saved within {timeout} s")
                } else {
                    return Effects::new();
                };
                self.end(cx, status, outcome, reason, Vec::new())
            }
            Intent::Train | Intent::Recording(_) | Intent::Ended(_) => Effects::new(),
        }
    }

    pub(crate) fn fail(
        &mut self,
        cx: &Context,
        status: &Status,
        reason: String,
        tail: Vec<String>,
    ) -> Effects {
        self.end(cx, status, Outcome::Failed, reason, tail)
    }

    fn end(
        &mut self,
        cx: &Context,
        status: &Status,
        outcome: Outcome,
        reason: String,
        tail: Vec<String>,
    ) -> Effects {
        let mut effects = Effects::new();
        if self.has_ended() {
            return effects;
        }
        let Results { step, loss, val_loss, state } = status.results;
        let end = End {
            outcome,
            // A run that has not failed keeps what is in a checkpoint, and no more.
            step: if outcome == Outcome::Failed { step } else { status.committed_step.unwrap_or(0) },
            loss,
            val_loss,
            state: state.filter(|_| outcome == Outcome::Finished),
            reason,
            tail,
        };
        self.intent = Intent::Recording(end.clone());
        if outcome == Outcome::Released {
            effects.append(self.end_recorded(cx));
        } else {
            effects.command(Command::RecordEnd { run: cx.run.clone(), end });
        }
        effects
    }

    pub(crate) fn announce_phase(&mut self, cx: &Context, phase: (Phase, String)) -> Effects {
        let mut effects = Effects::new();
        if self.announced.as_ref() != Some(&phase) {
            self.announced = Some(phase.clone());
            let (phase, detail) = phase;
            effects.announce(cx, Notice::Phase { phase, detail });
        }
        effects
    }
}

/// How a run ends whose members have all applied the last step, if it ends now.
fn completion(cx: &Context, status: &Status) -> Option<(Outcome, String)> {
    if let FinalState::Differs(first, other) = status.final_state? {
        let reason = format!(
            "workers {first} and {other} applied the same steps and hold different bits; \
             the trainer is not deterministic, or their machines are of different numerics classes"
        );
        Some((Outcome::Failed, reason))
    } else if status.committed_step == Some(status.results.step) {
        let Results { step, .. } = status.results;
        let early = step < cx.facts.steps;
        let reason = early.then(|| format!("its program ended it after step {step} of {}", cx.facts.steps));
        Some((Outcome::Finished, reason.unwrap_or_default()))
    } else if status.is_save_refused {
        let reason = status.save_failure.as_deref().unwrap_or_default();
        Some((Outcome::Failed, format!("the last checkpoint could not be saved: {reason}")))
    } else {
        None
    }
}

/// What a stopped run has kept and what not.
fn why_stopped(status: &Status) -> String {
    let committed = status.committed_step;
    match &status.save_failure {
        Some(failure) if status.held_step > committed => {
            format!("stopped, but the checkpoint could not be saved: {failure}")
        }
        _ if status.results.step > committed.unwrap_or(0) => {
            let kept = committed.unwrap_or(0);
            format!("stopped; the steps after step {kept} are lost with the workers that held them")
        }
        _ => "stopped".into(),
    }
}

/// Questions.
impl Lifecycle {
    /// Whether the run is to train to its last step; otherwise it takes no new slot and starts no worker.
    pub(crate) fn is_training(&self) -> bool {
        self.intent == Intent::Train
    }

    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.intent, Intent::Stop { .. })
    }

    /// Whether it is decided how the run ends.
    pub(crate) fn has_ended(&self) -> bool {
        self.end_reason().is_some()
    }

    /// Why the run has ended, as its workers are told, if it has.
    pub(crate) fn end_reason(&self) -> Option<&str> {
        match &self.intent {
            Intent::Recording(end) | Intent::Ended(end) => Some(match end.outcome {
                Outcome::Finished => "the run is finished",
                _ => &end.reason,
            }),
            Intent::Train | Intent::Stop { .. } | Intent::Cancel => None,
        }
    }

    /// Whether a run without a generation is to form one.
    pub(crate) fn may_form(&self, status: &Status) -> bool {
        match self.intent {
            Intent::Train => true,
            // To save the steps since the last checkpoint, unless that is under way or was given up.
            Intent::Stop { .. } => {
                status.held_step > status.committed_step && !status.is_saving && !status.is_save_refused
            }
            Intent::Cancel | Intent::Recording(_) | Intent::Ended(_) => false,
        }
    }

    /// What the run is doing, and why, unless it trains: then the other machines know.
    pub(crate) fn phase(&self) -> Option<(Phase, String)> {
        match &self.intent {
            Intent::Train => None,
            Intent::Stop { .. } => Some((Phase::Stopping, "a checkpoint is being saved".into())),
            Intent::Cancel => Some((Phase::Stopping, "it is being cancelled".into())),
            Intent::Recording(_) => Some((Phase::Stopping, "its end is being recorded".into())),
            Intent::Ended(end) => {
                let phase = match end.outcome {
                    Outcome::Finished => Phase::Finished,
                    Outcome::Failed => Phase::Failed,
                    Outcome::Cancelled => Phase::Cancelled,
                    Outcome::Stopped | Outcome::Released => Phase::Stopped,
                };
                Some((phase, end.reason.clone()))
            }
        }
    }
}
