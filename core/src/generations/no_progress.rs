//! What happens to a run whose generations break one after another before their first step, though no member is lost.

use whimbrel_plan::WorkerId;

/// Counts the generations in a row that made no progress.
#[derive(Debug, Default)]
pub(super) struct NoProgress {
    in_a_row: u32,
}

/// What has to happen so that the next generations make progress.
#[derive(Debug)]
pub(crate) enum Remedy {
    /// This worker is lost, for this reason.
    Lose(WorkerId, String),
    /// The run fails, for this reason.
    Fail(String),
}

impl NoProgress {
    pub(super) fn reset(&mut self) {
        self.in_a_row = 0;
    }

    /// Counts one more. After `max_failures` of them, more would follow for ever: some member cannot work with the others,
    /// for example because they cannot reach it. The main suspect of the last generation has to go; if there is none, the
    /// run fails after twice as many.
    pub(super) fn count(
        &mut self,
        suspect: Option<WorkerId>,
        why: &str,
        max_failures: u32,
    ) -> Option<Remedy> {
        self.in_a_row += 1;
        if self.in_a_row < max_failures {
            return None;
        }
        let reason = format!("{} generations in a row broke before their first step: {why}", self.in_a_row);
        match suspect {
            Some(suspect) => Some(Remedy::Lose(suspect, reason)),
            None if self.in_a_row >= 2 * max_failures => Some(Remedy::Fail(reason)),
            None => None,
        }
    }
}
