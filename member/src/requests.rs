//! What the coordinator wants of this worker now.
//!
//! Requests are not queued. Each one updates the [`Requests`], and the training thread reads them where it can act: a
//! generation that was replaced in the meantime is never begun, and a request for a generation that is over changes
//! nothing.

use std::sync::Arc;

use whimbrel_plan::Generation;

/// One request of the coordinator, checked: the generation names this worker as a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Be a member of this generation, and of no other.
    Generation(Generation),
    /// Take a checkpoint at the next step boundary, or halt there, or both.
    Ask {
        /// The generation whose members are asked.
        generation: u64,
        /// Take a checkpoint.
        checkpoint: bool,
        /// Halt, after the checkpoint if one is asked for.
        halt: bool,
    },
    /// Leave this generation and those before it at once, in the middle of a step if need be.
    Interrupt {
        /// The generation.
        generation: u64,
    },
    /// End the worker.
    Leave {
        /// Why.
        reason: String,
    },
}

/// What the coordinator wants of this worker now.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// The generation with the highest number.
    newest: Option<Arc<Generation>>,
    /// This generation and those before it are to be left at once; generations count from 1.
    interrupted: u64,
    asked: Asked,
    end: Option<End>,
}

/// What the members of a generation are asked to do at a step boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    generation: u64,
    /// How many checkpoints were asked for. A member remembers how many of them it has taken.
    pub checkpoints: u64,
    /// Whether to halt.
    pub halt: bool,
    /// The last of the checkpoints is the one to halt with: that of the last step taken.
    halts_with_one: bool,
}

impl Asked {
    /// How many of the checkpoints are met by one that is staged now; `is_last` if no step is taken after it.
    ///
    /// A request that came too late for the note of this step is met too: the checkpoint is what it asked for. Only the
    /// checkpoint to halt with must be that of the last step.
    pub(crate) fn met_by_one_now(&self, is_last: bool) -> u64 {
        self.checkpoints - u64::from(self.halts_with_one && !is_last)
    }
}

/// Why the worker is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The coordinator says so.
    Leave {
        /// Its reason.
        reason: String,
    },
    /// The connection to the coordinator is lost.
    Lost,
}

impl Requests {
    /// Takes a request in.
    pub fn take(&mut self, request: Request) {
        match request {
            Request::Generation(generation) => {
                if self.newest.as_ref().is_none_or(|newest| newest.number < generation.number) {
                    self.newest = Some(Arc::new(generation));
                }
            }
            Request::Ask { generation, checkpoint, halt } => {
                if generation > self.asked.generation {
                    self.asked = Asked { generation, ..Asked::default() };
                }
                if generation == self.asked.generation {
                    self.asked.checkpoints += u64::from(checkpoint);
                    self.asked.halt |= halt;
                    self.asked.halts_with_one |= checkpoint && halt;
                }
            }
            Request::Interrupt { generation } => self.interrupted = self.interrupted.max(generation),
            Request::Leave { reason } => self.end(End::Leave { reason }),
        }
    }

    /// Ends the worker. The first reason is kept.
    pub fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Why the worker is to end, if it is.
    pub fn ended(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The generation to begin for a worker that has begun those up to `last`.
    pub fn generation_after(&self, last: u64) -> Option<&Arc<Generation>> {
        self.newest.as_ref().filter(|newest| newest.number > last)
    }

    /// Whether a member of `generation` is to leave it now, whatever it does.
    pub fn calls_off(&self, generation: u64) -> bool {
        self.called_off_through() >= generation
    }

    /// The highest generation that is to be left at once; 0 if there is none, `u64::MAX` when the worker is to end.
    pub fn called_off_through(&self) -> u64 {
        let replaced = self.newest.as_ref().map_or(0, |newest| newest.number.saturating_sub(1));
        if self.end.is_some() { u64::MAX } else { self.interrupted.max(replaced) }
    }

    /// What the members of `generation` are asked to do at a step boundary.
    pub fn asked_of(&self, generation: u64) -> Asked {
        if self.asked.generation == generation { self.asked } else { Asked::default() }
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_plan::{Member, Origin, WorkerId};

    use super::*;

    fn generation(number: u64) -> Request {
        let address = ([127, 0, 0, 1], 1).into();
        let member = Member { worker: WorkerId(7), address, share: 4, holds: None };
        let (run, origin, key) = ("r".parse().unwrap(), Origin::Initial, [0; 32]);
        let members = vec![member];
        Request::Generation(Generation { run, epoch: 2, number, shards: 4, origin, members, key })
    }

    fn after(taken: impl IntoIterator<Item = Request>) -> Requests {
        let mut requests = Requests::default();
        taken.into_iter().for_each(|request| requests.take(request));
        requests
    }

    fn ask(generation: u64, checkpoint: bool, halt: bool) -> Request {
        Request::Ask { generation, checkpoint, halt }
    }

    #[test]
    fn a_newer_generation_calls_off_the_older_and_need_not_wait_for_it() {
        let requests = after([generation(1), generation(3), generation(2)]);
        assert_eq!(requests.generation_after(0).map(|newest| newest.number), Some(3));
        assert!(requests.generation_after(3).is_none());
        assert!(requests.calls_off(2) && !requests.calls_off(3));
    }

    #[test]
    fn an_interrupt_calls_off_its_generation_and_the_end_all_of_them() {
        let mut requests = after([generation(3), Request::Interrupt { generation: 3 }]);
        assert!(requests.calls_off(3) && !requests.calls_off(4));
        requests.end(End::Leave { reason: "done".into() });
        requests.end(End::Lost);
        assert!(requests.calls_off(4));
        assert_eq!(requests.ended(), Some(&End::Leave { reason: "done".into() }));
    }

    #[test]
    fn a_late_interrupt_does_not_touch_the_generation_that_replaced_its_own() {
        let requests = after([
            generation(4),
            Request::Interrupt { generation: 3 },
            Request::Interrupt { generation: 2 },
        ]);
        assert!(requests.calls_off(3) && !requests.calls_off(4));
    }

    #[test]
    fn asks_add_up_within_their_generation_and_are_void_for_others() {
        let requests = after([ask(2, true, false), ask(2, true, true), ask(1, true, false)]);
        let asked = requests.asked_of(2);
        assert_eq!((asked.checkpoints, asked.halt), (2, true));
        assert_eq!(
            (asked.met_by_one_now(false), asked.met_by_one_now(true)),
            (1, 2),
            "the checkpoint to halt with is the last"
        );
        assert_eq!(requests.asked_of(1), Asked::default());
        let separate = after([ask(2, true, false), ask(2, false, true)]).asked_of(2);
        assert_eq!(separate.met_by_one_now(false), 1, "a halt alone asks for no checkpoint");
        assert_eq!(after([ask(2, true, true), ask(3, true, false)]).asked_of(3).checkpoints, 1);
    }
}
