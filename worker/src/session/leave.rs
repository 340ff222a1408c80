//! Leaving a generation before its end, and saying so.

use whimbrel_collective::Error;
use whimbrel_plan::WorkerId;
use whimbrel_proto::{
    v1::{self, halted::Cause, worker_message::Message},
    with_causes,
};

use crate::{
    member::Member,
    session::{Session, SessionError},
};

impl Session {
    /// Leaves a generation because an operation of its group failed.
    pub(crate) fn break_off(&mut self, member: Member, error: &Error) -> Result<(), SessionError> {
        let generation = member.generation.number;
        self.leave(member);
        self.report_break(generation, error)
    }

    /// Says that the generation was left because an operation of its group failed.
    pub(crate) fn report_break(&self, generation: u64, error: &Error) -> Result<(), SessionError> {
        if let Error::Misuse(_) = error {
            return Err(SessionError::Misuse(error.to_string()));
        }
        self.report_halt(generation, broken(with_causes(error), error.suspect()));
        Ok(())
    }

    /// Leaves a generation that cannot go on.
    pub(crate) fn leave_broken(&mut self, member: Member, reason: String, suspect: Option<WorkerId>) {
        let generation = member.generation.number;
        self.leave(member);
        self.report_halt(generation, broken(reason, suspect));
    }

    fn leave(&self, member: Member) {
        let (generation, step, unstaged) =
            (member.generation.number, member.step, member.phase.is_to_stage());
        // The connections first, so that the peers notice at once.
        drop(member);
        if unstaged {
            // The others may have staged theirs: they are not to be waited with.
            let reason = "its generation was left before it was staged".to_owned();
            self.link.outbox().send(Message::SliceFailed(v1::SliceFailed { generation, step, reason }));
        }
    }

    /// Says that the generation was left, and which state is held.
    pub(crate) fn report_halt(&self, generation: u64, cause: Cause) {
        let step = self.held.step();
        tracing::info!(generation, step, ?cause, "left a generation");
        self.link.outbox().send(Message::Halted(v1::Halted { generation, step, cause: Some(cause) }));
    }
}

fn broken(reason: String, suspect: Option<WorkerId>) -> Cause {
    Cause::Broken(v1::Broken { reason, suspect: suspect.map(|suspect| suspect.0) })
}
