//! What the coordinator wants of this worker now.
//!
//! Commands are not queued: each moves the *orders* on, and the training thread looks at them where it can act. A
//! generation that was replaced before anybody looked need never be begun, and a command for a generation that is over
//! changes nothing.

use std::sync::Arc;

use whimbrel_plan::{Generation, RunId, WorkerId};
use whimbrel_proto::{border::WireError, v1};

use crate::control::stream::LinkError;

/// What the coordinator wants of this worker now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    /// The generation with the highest number.
    newest: Option<Arc<Generation>>,
    /// This generation and those before it are to be left at once; they count from 1.
    interrupted: u64,
    asked: Asked,
    end: Option<End>,
}

/// What was asked of a generation's members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    generation: u64,
    /// How many checkpoints: whoever takes one remembers the count, and so which requests it has met.
    pub(crate) checkpoints: u64,
    /// To halt at a step boundary.
    pub(crate) halt: bool,
    /// The last of the checkpoints is the one to halt with: that of the last step taken.
    halts_with_one: bool,
}

impl Asked {
    /// How many of the checkpoints are met by one that is staged now, `is_last` if no step is taken after it. Those that
    /// came too late for the note of its step are met too: it is what they asked for. But one to halt with is not, unless
    /// this is it.
    pub(crate) fn met_by_one_now(&self, is_last: bool) -> u64 {
        self.checkpoints - u64::from(self.halts_with_one && !is_last)
    }
}

/// Why the worker is to end.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The coordinator says so, and why.
    Leave(String),
    /// The coordinator cannot be heard any more.
    Lost(Arc<LinkError>),
}

/// What a generation must say for this worker to be meant.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) run: RunId,
    pub(crate) worker: WorkerId,
    pub(crate) epoch: u64,
    pub(crate) shards: u32,
}

impl Orders {
    /// Takes a command in. What the command contradicts is the coordinator's mistake.
    pub(crate) fn take(&mut self, command: v1::WorkerCommand, expected: &Expected) -> Result<(), WireError> {
        use v1::worker_command::Command;
        match command.command.ok_or(WireError::Missing("command"))? {
            Command::Heartbeat(v1::CoordinatorHeartbeat {}) => {}
            Command::Generation(generation) => {
                let generation = expected.check(generation.try_into()?)?;
                if self.newest.as_ref().is_none_or(|newest| newest.number < generation.number) {
                    self.newest = Some(Arc::new(generation));
                }
            }
            Command::Ask(ask) => {
                if ask.generation > self.asked.generation {
                    self.asked = Asked { generation: ask.generation, ..Asked::default() };
                }
                if ask.generation == self.asked.generation {
                    self.asked.checkpoints += u64::from(ask.checkpoint);
                    self.asked.halt |= ask.halt;
                    self.asked.halts_with_one |= ask.checkpoint && ask.halt;
                }
            }
            Command::Interrupt(interrupt) => self.interrupted = self.interrupted.max(interrupt.generation),
            Command::Leave(leave) => self.end(End::Leave(leave.reason)),
            Command::Welcome(_) => {
                return Err(WireError::Invalid("command", "a second welcome".into()));
            }
        }
        Ok(())
    }

    /// Ends the worker, unless something has before.
    pub(crate) fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Why the worker is to end, if it is.
    pub(crate) fn ended(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The generation to begin for one that has begun those up to `last`.
    pub(crate) fn generation_after(&self, last: u64) -> Option<&Arc<Generation>> {
        self.newest.as_ref().filter(|newest| newest.number > last)
    }

    /// Whether a member of `generation` is to leave it, in the middle of whatever it does.
    pub(crate) fn calls_off(&self, generation: u64) -> bool {
        self.called_off_through() >= generation
    }

    /// The highest generation that is to be left at once; 0 if there is none.
    pub(crate) fn called_off_through(&self) -> u64 {
        let replaced = self.newest.as_ref().map_or(0, |newest| newest.number.saturating_sub(1));
        if self.end.is_some() { u64::MAX } else { self.interrupted.max(replaced) }
    }

    /// What was asked of the members of `generation`.
    pub(crate) fn asked_of(&self, generation: u64) -> Asked {
        if self.asked.generation == generation { self.asked } else { Asked::default() }
    }
}

impl Expected {
    fn check(&self, generation: Generation) -> Result<Generation, WireError> {
        let invalid = |field, found: String| Err(WireError::Invalid(field, found));
        if generation.run != self.run {
            return invalid("generation.run", format!("{}, not {}", generation.run, self.run));
        }
        if generation.epoch != self.epoch {
            return invalid("generation.epoch", format!("{}, not {}", generation.epoch, self.epoch));
        }
        if generation.shards != self.shards {
            return invalid("generation.shards", format!("{}, not {}", generation.shards, self.shards));
        }
        if generation.rank_of(self.worker).is_none() {
            return invalid("generation.members", format!("without {}, to whom it was sent", self.worker));
        }
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_plan::{Member, Origin};

    use super::*;

    fn expected() -> Expected {
        Expected { run: "r".parse().unwrap(), worker: WorkerId(7), epoch: 2, shards: 4 }
    }

    fn generation(number: u64, epoch: u64) -> v1::worker_command::Command {
        let address = ([127, 0, 0, 1], 1).into();
        let member = Member { worker: WorkerId(7), address, share: 4, holds: None };
        let (run, origin, key) = ("r".parse().unwrap(), Origin::Initial, [0; 32]);
        let generation = Generation { run, epoch, number, shards: 4, origin, members: vec![member], key };
        v1::worker_command::Command::Generation((&generation).into())
    }

    fn after(commands: impl IntoIterator<Item = v1::worker_command::Command>) -> Result<Orders, WireError> {
        let mut orders = Orders::default();
        for command in commands {
            orders.take(v1::WorkerCommand { command: Some(command) }, &expected())?;
        }
        Ok(orders)
    }

    fn ask(generation: u64, checkpoint: bool, halt: bool) -> v1::worker_command::Command {
        v1::worker_command::Command::Ask(v1::Ask { generation, checkpoint, halt })
    }

    #[test]
    fn a_newer_generation_calls_off_the_older_and_need_not_wait_for_it() {
        let orders = after([generation(1, 2), generation(3, 2), generation(2, 2)]).unwrap();
        assert_eq!(orders.generation_after(0).map(|newest| newest.number), Some(3));
        assert!(orders.generation_after(3).is_none());
        assert!(orders.calls_off(2) && !orders.calls_off(3));
    }

    #[test]
    fn an_interrupt_calls_off_its_generation_and_the_end_all_of_them() {
        let interrupt = v1::worker_command::Command::Interrupt(v1::Interrupt { generation: 3 });
        let mut orders = after([generation(3, 2), interrupt]).unwrap();
        assert!(orders.calls_off(3) && !orders.calls_off(4));
        orders.end(End::Leave("done".into()));
        orders.end(End::Leave("again".into()));
        assert!(orders.calls_off(4));
        assert!(matches!(orders.ended(), Some(End::Leave(reason)) if reason == "done"));
    }

    #[test]
    fn asks_add_up_within_their_generation_and_are_void_for_others() {
        let orders = after([ask(2, true, false), ask(2, true, true), ask(1, true, false)]).unwrap();
        let asked = orders.asked_of(2);
        assert_eq!((asked.checkpoints, asked.halt), (2, true));
        assert_eq!(
            (asked.met_by_one_now(false), asked.met_by_one_now(true)),
            (1, 2),
            "the halt's is the last"
        );
        assert_eq!(orders.asked_of(1), Asked::default());
        let for_others = after([ask(2, true, false), ask(2, false, true)]).unwrap().asked_of(2);
        assert_eq!(for_others.met_by_one_now(false), 1, "who only halts asks for no checkpoint");
        assert_eq!(after([ask(2, true, true), ask(3, true, false)]).unwrap().asked_of(3).checkpoints, 1);
    }

    #[test]
    fn what_is_not_meant_for_this_worker_is_a_mistake() {
        let error = after([generation(1, 1)]).unwrap_err().to_string();
        assert_eq!(error, "field generation.epoch is 1, not 2");
        let mut orders = Orders::default();
        assert!(orders.take(v1::WorkerCommand { command: None }, &expected()).is_err());
        let mut stranger = expected();
        stranger.worker = WorkerId(8);
        let command = v1::WorkerCommand { command: Some(generation(1, 2)) };
        let error = orders.take(command, &stranger).unwrap_err().to_string();
        assert_eq!(error, "field generation.members is without w8, to whom it was sent");
    }
}
