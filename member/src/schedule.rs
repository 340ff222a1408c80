//! The steps after which a run is evaluated and saved without a request.

/// The length of a run, and what recurs in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps between evaluations; `None`: only at the end. Not zero.
    pub evaluate_every: Option<u64>,
    /// Steps between checkpoints; `None` where the coordinator requests them. Not zero.
    pub checkpoint_every: Option<u64>,
}

impl Schedule {
    /// Whether the model is evaluated after `step` steps.
    pub fn evaluates_at(self, step: u64) -> bool {
        step == self.steps || self.evaluate_every.is_some_and(|every| step.is_multiple_of(every))
    }

    /// Whether a checkpoint is due after `step` steps.
    pub fn saves_at(self, step: u64) -> bool {
        step == self.steps || self.checkpoint_every.is_some_and(|every| step.is_multiple_of(every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_and_checkpoints_fall_on_their_steps_and_the_last() {
        let schedule = Schedule { steps: 30, evaluate_every: Some(20), checkpoint_every: None };
        let due =
            |at: fn(Schedule, u64) -> bool| (1..=30).filter(|&step| at(schedule, step)).collect::<Vec<_>>();
        assert_eq!(due(Schedule::evaluates_at), [20, 30]);
        assert_eq!(due(Schedule::saves_at), [30]);
    }
}
