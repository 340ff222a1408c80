//! The loop: the next action is performed until the program has something to do.

use whimbrel_member::{Action, End};

use crate::session::{
    Session, SessionError, State,
    evaluation::Evaluation,
    open::{Computing, Evaluating, Open},
    step::Step,
};

/// The program's next work. Work that the program leaves unfinished is given out again by the next [`Session::next`].
#[derive(Debug)]
pub enum Work<'a> {
    /// Make the initial state from the seed again: the program's state has changed since it was built. Asking for the
    /// next work says that it is made.
    Initialise,
    /// Compute shards of a step, and apply the sum.
    Step(Step<'a>),
    /// Evaluate parts of the validation data.
    Evaluate(Evaluation<'a>),
}

/// The kind of the next work.
enum Due {
    Initialise,
    Step,
    Evaluate,
}

impl Session {
    /// Blocks until the program has something to do; `None` when the coordinator says that the worker is to end.
    ///
    /// `state` is the program's state, the same one every time. Asking for more work says that the last work is done:
    /// the update applied, the initial state made.
    pub fn next(&mut self, state: &mut dyn State) -> Result<Option<Work<'_>>, SessionError> {
        Ok(match self.advance(state)? {
            Some(Due::Initialise) => Some(Work::Initialise),
            Some(Due::Step) => Some(Work::Step(Step { session: self })),
            Some(Due::Evaluate) => Some(Work::Evaluate(Evaluation { session: self })),
            None => None,
        })
    }

    /// The step given out last, if it is not finished. For bindings that cannot keep the borrow of a [`Step`].
    pub fn step(&mut self) -> Option<Step<'_>> {
        matches!(self.open, Open::Step(_)).then_some(Step { session: self })
    }

    /// The evaluation given out last, if it is not finished. For bindings that cannot keep the borrow of an
    /// [`Evaluation`].
    pub fn evaluation(&mut self) -> Option<Evaluation<'_>> {
        matches!(self.open, Open::Evaluation(_)).then_some(Evaluation { session: self })
    }

    /// Performs actions until the program has something to do; `None` when the worker is to end.
    fn advance(&mut self, state: &mut dyn State) -> Result<Option<Due>, SessionError> {
        self.open = Open::Nothing;
        loop {
            if self.control.listener_died() {
                return Err(self.lost());
            }
            let action = self.control.read(|requests| self.worker.next(requests))?;
            self.report();
            match action {
                Action::Wait => {
                    let worker = &self.worker;
                    self.control.wait(|requests| worker.wakes(requests));
                }
                Action::Join { generation, rank } => self.join(&generation, rank)?,
                Action::SendState { to } => self.send_state(&to, state)?,
                Action::ReceiveState { from } => self.receive_state(from, state)?,
                Action::Restore { step, manifest } => self.restore(step, &manifest, state)?,
                Action::Stage { generation, step, rank, slices } => {
                    let range = self.layout.slice(rank, slices);
                    self.stage(generation, step, range, state)?;
                }
                Action::Hash { step } => self.hash(step, state)?,
                Action::Initialise => return Ok(Some(Due::Initialise)),
                Action::Step { step, shards } => {
                    self.prepare_save();
                    self.accumulator.begin(shards.clone());
                    self.open = Open::Step(Computing::new(step, shards));
                    return Ok(Some(Due::Step));
                }
                Action::Evaluate { step, parts } => {
                    self.open = Open::Evaluation(Evaluating::new(step, parts));
                    return Ok(Some(Due::Evaluate));
                }
                // The connections were closed before the report was sent.
                Action::Leave => {}
                Action::End(End::Leave { reason }) => {
                    tracing::info!(reason, "the coordinator ended this worker");
                    return Ok(None);
                }
                Action::End(End::Lost) => return Err(self.lost()),
            }
        }
    }

    fn lost(&self) -> SessionError {
        SessionError::Lost { coordinator: self.coordinator.clone(), source: self.control.lost() }
    }
}
