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
    /// Steps applied to the state that is evaluated.
    pub step: u64,
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
        let step = evaluating.step;
        Some(Part { step, index, parts: self.session.settings.context.shards })
    }

    /// The part's contribution to the mean validation loss; `None` where there is nothing to evaluate.
    pub fn push(&mut self, value: Option<f64>) {
        if let Open::Evaluation(evaluating) = &mut self.session.open {
            evaluating.values.push(value);
        }
    }

    /// Adds up the values of all workers' parts: the mean validation loss, the same bits on every worker. `None` where
    /// there is nothing to evaluate, or when the generation broke: then the next one evaluates again.
    pub fn finish(self) -> Result<Option<f64>, SessionError> {
        self.session.finish_evaluation()
    }
}

impl Session {
    fn finish_evaluation(&mut self) -> Result<Option<f64>, SessionError> {
        if self.is_called_off() {
            return Ok(None);
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
                // A note that cannot be read has ended the membership.
                Ok(self.worker.generation().and(self.worker.val_loss()))
            }
            Err(error) => self.broken(&error).map(|()| None),
        }
    }
}
