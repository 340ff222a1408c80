//! What the four state machines of a run share: the values that they read and the effects that they return.
//!
//! A machine never calls another one. It returns [`Effects`], in order; `Run::apply` passes commands to the driver and
//! moves every other effect, as plain values, to the machines that need it.

use std::{net::SocketAddr, time::Duration};

use whimbrel_plan::{RunId, WorkerId};

use crate::{
    command::{Command, Notice},
    facts::RunFacts,
    timing::Timing,
};

/// What every machine of a run may read.
#[derive(Debug)]
pub(crate) struct Context {
    /// The time of the event that is handled.
    pub(crate) now: Duration,
    pub(crate) run: RunId,
    pub(crate) facts: RunFacts,
    pub(crate) timing: Timing,
}

impl Context {
    /// How much time has passed since `moment`.
    pub(crate) fn since(&self, moment: Duration) -> Duration {
        self.now.saturating_sub(moment)
    }
}

/// A ready worker that could be a member of the next generation.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) worker: WorkerId,
    pub(crate) rank: u32,
    /// Where its peers reach it.
    pub(crate) address: SocketAddr,
    /// Steps applied to the state that it holds, if it holds one.
    pub(crate) holds: Option<u64>,
}

/// A generation in which a checkpoint can be asked for now.
#[derive(Debug)]
pub(crate) struct Askable {
    pub(crate) generation: u64,
    pub(crate) members: Vec<WorkerId>,
    /// The run's last step, if every member has applied it.
    pub(crate) last_step: Option<u64>,
}

/// The states that the members of a complete generation hold after the run's last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinalState {
    /// All hold the state with this BLAKE3.
    Same([u8; 32]),
    /// These two differ.
    Differs(WorkerId, WorkerId),
}

/// How far a run has got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Results {
    /// The most steps ever applied.
    pub(crate) step: u64,
    pub(crate) loss: Option<f64>,
    pub(crate) val_loss: Option<f64>,
    /// BLAKE3 of the state of the first member that has applied the last step.
    pub(crate) state: Option<[u8; 32]>,
}

/// Why a checkpoint could not be read.
#[derive(Debug)]
pub(crate) struct RestoreFailure {
    /// The checkpoint's manifest.
    pub(crate) manifest: String,
    /// Bytes are damaged or missing; otherwise the store was out of reach.
    pub(crate) damaged: bool,
    pub(crate) reason: String,
}

/// One consequence of an event or of a decision.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The driver gets this command.
    Command(Command),
    /// The fleet has lost this worker: it is no member any more, and saves no slice.
    WorkerLost(WorkerId),
    /// A member's state has this many steps applied.
    StepReached(u64),
    /// A generation with these members begins.
    GenerationFormed { number: u64, members: Vec<WorkerId> },
    /// The generation of these members has applied a step; `reporter` says so.
    StepApplied { reporter: WorkerId, members: Vec<WorkerId>, step: u64 },
    /// A member has left its generation.
    MemberLeft {
        worker: WorkerId,
        generation: u64,
        /// Steps applied to the state that it holds, if it holds one.
        step: Option<u64>,
        /// It has staged a slice of a checkpoint at that step.
        staged: bool,
        /// It has not staged a slice of any later step.
        saves_through: u64,
    },
    /// The generation could not read the checkpoint that it starts from.
    RestoreFailed(RestoreFailure),
    /// A member has applied the last step of the run, `step`, and so have `all` or only some of the others.
    MemberCompleted { generation: u64, step: u64, all: bool },
    /// The run cannot go on.
    Fail { reason: String, tail: Vec<String> },
}

/// The consequences of an event or of a decision, in the order in which they take place.
#[derive(Debug, Default)]
pub(crate) struct Effects(Vec<Effect>);

impl Effects {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.push(Effect::Command(command));
    }

    pub(crate) fn announce(&mut self, cx: &Context, notice: Notice) {
        self.command(Command::Announce { run: cx.run.clone(), notice });
    }

    pub(crate) fn warn(&mut self, cx: &Context, text: String, tail: Vec<String>) {
        self.announce(cx, Notice::Warning { text, tail });
    }

    pub(crate) fn fail(&mut self, reason: String, tail: Vec<String>) {
        self.push(Effect::Fail { reason, tail });
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::vec::IntoIter<Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
