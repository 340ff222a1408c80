//! What happens at a step boundary: checkpoints, halts, and the run's completion.

use whimbrel_proto::v1::{self, halted::Cause, worker_message::Message};
use whimbrel_state::digest;

use crate::{
    member::{Computing, Evaluating, Member, Phase, Todo},
    saver::Slice,
    session::{Session, SessionError, State},
};

impl Session {
    /// Does the next thing that is to be done at a boundary. Returns the member, unless it has left its generation.
    ///
    /// A checkpoint comes before an evaluation: the sooner it is staged, the sooner it is durable.
    pub(crate) fn at_boundary(
        &mut self,
        mut member: Member,
        todo: Todo,
        state: &mut dyn State,
    ) -> Result<Option<Member>, SessionError> {
        member.phase = if todo.checkpoint {
            self.stage(&mut member, state, todo.halt)?;
            Phase::Boundary(Todo { checkpoint: false, ..todo })
        } else if todo.evaluate {
            Phase::Evaluating(Evaluating::new(member.assignment()), Todo { evaluate: false, ..todo })
        } else if todo.halt {
            let generation = member.generation.number;
            drop(member);
            self.report_halt(generation, Cause::Agreed(v1::Agreed {}));
            return Ok(None);
        } else if member.step == self.terms.context.steps {
            self.complete(&mut member, state)?;
            Phase::Completed
        } else {
            Phase::Step(Computing::new(member.assignment()))
        };
        Ok(Some(member))
    }

    /// Waits, with every step of the run applied, until the generation is called off, and saves again where a save
    /// failed and the coordinator asks for another.
    pub(crate) fn stand_by(
        &mut self,
        member: &mut Member,
        state: &mut dyn State,
    ) -> Result<(), SessionError> {
        let number = member.generation.number;
        self.link.called_off_or_asked(number, member.asks_met);
        if !self.link.calls_off(number) && self.link.asked_of(number).checkpoints > member.asks_met {
            self.stage(member, state, false)?;
        }
        Ok(())
    }

    /// Stages this worker's slice of a checkpoint. `halts`: its generation takes no further step, though the run does.
    fn stage(&mut self, member: &mut Member, state: &mut dyn State, halts: bool) -> Result<(), SessionError> {
        let generation = member.generation.number;
        let is_last = halts || member.step == self.terms.context.steps;
        member.asks_met = self.link.asked_of(generation).met_by_one_now(is_last);
        let bytes = self.bytes_of(state)?;
        let range = self.layout.slice(member.rank, member.group.size());
        self.saver.stage(&self.link, Slice { generation, step: member.step, range }, &bytes);
        Ok(())
    }

    /// Says that every step of the run is applied, and what that came to.
    fn complete(&mut self, member: &mut Member, state: &mut dyn State) -> Result<(), SessionError> {
        let (generation, step) = (member.generation.number, member.step);
        // What was asked for meanwhile is the checkpoint of the last step, which was staged.
        member.asks_met = self.link.asked_of(generation).checkpoints;
        let bytes = self.bytes_of(state)?;
        let Ok(digest) = digest::<std::convert::Infallible>(&self.layout, step, |index, sink| {
            sink(bytes.tensor(index));
            Ok(())
        });
        tracing::info!(generation, step, state = %digest, "every step is applied");
        let (state, loss, val_loss) = (digest.as_bytes().to_vec(), self.loss, self.val_loss);
        self.link.outbox().send(Message::Completed(v1::Completed {
            generation,
            step,
            state,
            loss,
            val_loss,
        }));
        Ok(())
    }
}
