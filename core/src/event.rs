//! What can happen. The coordinator's driver makes events of messages, answers and timers; there is no other way into the
//! core.

use std::net::SocketAddr;

use whimbrel_plan::{NodeId, RunId, WorkerId};

use crate::{
    facts::{EarlierTerms, RunFacts, Start},
    interval::SaveCost,
};

/// Something happened.
///
/// Evidence that a worker or a node is gone enters as an event as well: [`NodeLost`](Self::NodeLost),
/// [`WorkerDisconnected`](RunEvent::WorkerDisconnected), [`WorkerLost`](RunEvent::WorkerLost), or as heartbeats that do not
/// arrive before a [`Tick`](Self::Tick). A new source, such as a cloud's preemption notice, would be one more event here.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed. The driver sends one every fraction of a second; deadlines are checked then.
    Tick,
    /// This coordinator has started a term of the run; the run goes on from `start`.
    RunOpened {
        /// The run.
        run: RunId,
        /// The part of its spec that decisions depend on.
        facts: RunFacts,
        /// The epoch under which this coordinator decides.
        epoch: u64,
        /// Where its state is.
        start: Start,
        /// What earlier coordinators recorded about its training.
        earlier: EarlierTerms,
    },
    /// A node offers slots for workers.
    NodeJoined {
        /// The node, by a name never used before in this coordinator's life.
        node: NodeId,
        /// How many workers it offers to run.
        slots: u32,
    },
    /// A node has sent a heartbeat.
    NodeHeartbeat {
        /// The node.
        node: NodeId,
    },
    /// A node is gone, and its workers with it.
    NodeLost {
        /// The node.
        node: NodeId,
        /// The evidence.
        reason: String,
    },
    /// Something happened to a run.
    OfRun {
        /// The run.
        run: RunId,
        /// What happened.
        event: RunEvent,
    },
}

/// Something happened to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEvent {
    /// `setup` succeeded on a node.
    Prepared {
        /// The node.
        node: NodeId,
    },
    /// `setup` failed on a node.
    PrepareFailed {
        /// The node.
        node: NodeId,
        /// How.
        reason: String,
        /// The last lines it printed.
        tail: Vec<String>,
    },
    /// The worker's process exists.
    WorkerStarted {
        /// The worker.
        worker: WorkerId,
        /// Its process id on its node.
        pid: u32,
    },
    /// The worker can be a member of a generation.
    WorkerReady {
        /// The worker.
        worker: WorkerId,
        /// Where its peers reach it.
        address: SocketAddr,
    },
    /// The worker has sent a heartbeat.
    WorkerHeartbeat {
        /// The worker.
        worker: WorkerId,
        /// Steps applied to its state.
        step: u64,
    },
    /// The worker's connection has ended, most often because its process has. Its exit, which follows, says why.
    WorkerDisconnected {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker must not be used any more: its process is to be killed.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// The worker's trainer failed; the process is about to end.
    TrainerFailed {
        /// The worker.
        worker: WorkerId,
        /// The error.
        reason: String,
        /// Any other worker would fail in the same way: the run fails without a retry.
        fatal: bool,
    },
    /// The worker's process has ended.
    WorkerExited {
        /// The worker.
        worker: WorkerId,
        /// How.
        exit: Exit,
        /// The last lines it printed.
        tail: Vec<String>,
    },
    /// A generation applied a step.
    StepApplied {
        /// The worker that reports it.
        worker: WorkerId,
        /// The generation.
        generation: u64,
        /// Steps applied, this one included.
        step: u64,
        /// Mean loss over the global batch.
        loss: f64,
    },
    /// The validation loss is known.
    Evaluated {
        /// Steps applied.
        step: u64,
        /// The loss.
        val_loss: f64,
    },
    /// A worker has left a generation and holds its state.
    Halted {
        /// The worker.
        worker: WorkerId,
        /// The generation it left.
        generation: u64,
        /// Steps applied to the state it holds, if it holds one.
        step: Option<u64>,
        /// Why.
        cause: Cause,
    },
    /// A worker's slice of a checkpoint is in the store.
    SliceSaved {
        /// The worker.
        worker: WorkerId,
        /// The generation that staged it.
        generation: u64,
        /// Steps applied to the state staged.
        step: u64,
    },
    /// A worker's slice of a checkpoint could not be stored.
    SliceFailed {
        /// The worker.
        worker: WorkerId,
        /// The generation that staged it.
        generation: u64,
        /// Steps applied to the state staged.
        step: u64,
        /// How it failed.
        reason: String,
    },
    /// A checkpoint is committed.
    Committed {
        /// Steps applied to it.
        step: u64,
        /// Its manifest's name.
        manifest: String,
        /// What it cost.
        cost: SaveCost,
    },
    /// A checkpoint could not be committed.
    CommitFailed {
        /// Steps applied to it.
        step: u64,
        /// How it failed.
        reason: String,
    },
    /// A worker has applied the run's last step.
    Completed {
        /// The worker.
        worker: WorkerId,
        /// The generation.
        generation: u64,
        /// What it holds.
        completion: Completion,
    },
    /// A worker could not read the checkpoint that its generation starts from; it has left the generation.
    RestoreFailed {
        /// The worker.
        worker: WorkerId,
        /// The generation.
        generation: u64,
        /// The checkpoint's manifest.
        manifest: String,
        /// Bytes are damaged or missing; otherwise the store was out of reach.
        damaged: bool,
        /// How it failed.
        reason: String,
    },
    /// The answer to `Command::Quarantine`: the checkpoint is quarantined, unless some store has it whole.
    Quarantined {
        /// Where the run goes on from: an earlier checkpoint, or the same one if a store has it whole.
        start: Start,
    },
    /// The run's end is in the log.
    EndRecorded,
    /// Another coordinator has started a term, or the log cannot be written: this coordinator may decide nothing any more.
    TermLost {
        /// Which coordinator, or which error.
        reason: String,
    },
    /// A person wants a checkpoint and the run stopped.
    StopRequested {
        /// Whether the run's log records the stop; otherwise another coordinator may adopt the run unasked.
        record: bool,
    },
    /// A person wants the run cancelled.
    CancelRequested,
}

/// What a worker holds that has applied the run's last step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Completion {
    /// Steps applied: those of the run, or fewer if its program has ended it.
    pub step: u64,
    /// BLAKE3 of its state.
    pub state: [u8; 32],
    /// Mean loss of the last step, if it took part in it.
    pub loss: Option<f64>,
    /// The validation loss.
    pub val_loss: Option<f64>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It could not be started.
    Unstarted(String),
    /// Its node is gone.
    NodeLost(String),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(2) => f.write_str("SIGINT"),
            Self::Signal(6) => f.write_str("SIGABRT"),
            Self::Signal(9) => f.write_str("SIGKILL"),
            Self::Signal(11) => f.write_str("SIGSEGV"),
            Self::Signal(15) => f.write_str("SIGTERM"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unstarted(reason) => write!(f, "could not be started: {reason}"),
            Self::NodeLost(reason) => write!(f, "its node is gone: {reason}"),
        }
    }
}

/// Why a worker left a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// All members agreed to, at a step boundary.
    Agreed,
    /// An operation among the members failed.
    Broken {
        /// How.
        reason: String,
        /// The member that seems to be at fault.
        suspect: Option<WorkerId>,
    },
}
