//! An evaluation: the program evaluates parts of the validation data, and the values are added up across workers.

use std::mem;

use whimbrel_member::{Event, encode_parts};

use crate::session::{
    Session, SessionError, misuse, no_group,
    open::{Evaluating, Open},
};

/// An evaluation of which this worker evaluates some parts.
#[derive(Debug)]
pub struct Evaluation<'a> {
    pub(super) session: &'a mut Session,
}

/// A part of the validation data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part's number.
    pub index: u32,
    /// The number of parts.
    pub parts: u32,
}

impl Evaluation<'_> {
    /// The next part, which is given out until its value is [pushed](Self::push). `None` when all parts are finished,
    /// or when the generation is called off.
    pub fn part(&mut self) -> Option<Part> {
        if self.session.is_called_off() {
            return None;
        }
        let Open::Evaluation(evaluating) = &self.session.open else { return None };
        let index = evaluating.parts.clone().nth(evaluating.values.len())?;
        Some(Part { index, parts: self.session.settings.context.shards })
    }

    /// The part's contribution to the mean validation loss; `None` where there is nothing to evaluate.
    pub fn push(&mut self, value: Option<f64>) {
        if let Open::Evaluation(evaluating) = &mut self.session.open {
            evaluating.values.push(value);
        }
    }

    /// Adds up the values of all workers' parts.
    pub fn finish(self) -> Result<(), SessionError> {
        self.session.finish_evaluation()
    }
}

impl Session {
    fn finish_evaluation(&mut self) -> Result<(), SessionError> {
        if self.is_called_off() {
            return Ok(());
        }
        let Open::Evaluation(Evaluating { step, parts, values }) = mem::take(&mut self.open) else {
            return Err(self.closed(misuse("the end of an evaluation that was not begun")));
        };
        if values.len() != parts.len() {
            let what = format!("{} values for the parts {parts:?} of an evaluation", values.len());
            return Err(self.closed(misuse(what)));
        }
        let group = self.group.as_mut().ok_or_else(no_group);
        match group.and_then(|group| group.exchange(step, &encode_parts(&values))) {
            Ok(notes) => {
                self.handle(Event::Evaluated { notes });
                Ok(())
            }
            Err(error) => self.broken(&error),
        }
    }
}
