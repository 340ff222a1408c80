//! What the coordinator's driver is to do. Commands of one event are executed in order.

use std::time::Duration;

use whimbrel_plan::{Member, NodeId, Origin, RunId, WorkerId};

use crate::{event::Exit, interval::Interval, phase::Phase};

/// Something for the driver to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A node must run the run's `setup`. Answered by `Prepared` or `PrepareFailed`.
    Prepare {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
    },
    /// A node must start a worker. Answered by `WorkerStarted`, and in the end by `WorkerExited`.
    Start {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
        /// The worker, by a name never used before in the run and epoch.
        worker: WorkerId,
    },
    /// A node must end a worker's process with SIGKILL. `WorkerId(0)` stands for the run's `setup`.
    Kill {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
        /// The worker.
        worker: WorkerId,
    },
    /// Every member must be sent its generation.
    Form {
        /// The run.
        run: RunId,
        /// The generation.
        formation: Formation,
    },
    /// A member is asked to take a checkpoint or to halt. It tells the others in the next step's all-reduce, so that all do
    /// it at the same step boundary.
    Ask {
        /// The run.
        run: RunId,
        /// The member.
        worker: WorkerId,
        /// The generation.
        generation: u64,
        /// A checkpoint is wanted.
        checkpoint: bool,
        /// A halt is wanted.
        halt: bool,
    },
    /// A member must leave its generation at once.
    Interrupt {
        /// The run.
        run: RunId,
        /// The member.
        worker: WorkerId,
        /// The generation.
        generation: u64,
    },
    /// A worker must end its process itself.
    Leave {
        /// The run.
        run: RunId,
        /// The worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// Commit a checkpoint all of whose slices are saved. Answered by `Committed`, `CommitFailed` or `TermLost`.
    Commit {
        /// The run.
        run: RunId,
        /// The generation that staged it.
        generation: u64,
        /// Steps applied to it.
        step: u64,
    },
    /// Forget the slices of a checkpoint that can never be whole.
    Discard {
        /// The run.
        run: RunId,
        /// The generation that staged it.
        generation: u64,
        /// Steps applied to it.
        step: u64,
    },
    /// Check whether a checkpoint is damaged in every store, and record that if so. Answered by `Quarantined` or `TermLost`.
    Quarantine {
        /// The run.
        run: RunId,
        /// The checkpoint's manifest.
        manifest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Record the run's end. Answered by `EndRecorded` or `TermLost`.
    RecordEnd {
        /// The run.
        run: RunId,
        /// The end.
        end: End,
    },
    /// Send a notice to the clients that watch the run.
    Announce {
        /// The run.
        run: RunId,
        /// The notice.
        notice: Notice,
    },
}

/// A generation, without what only the driver knows: the epoch and the key of the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formation {
    /// Its number.
    pub number: u64,
    /// Where its state comes from.
    pub origin: Origin,
    /// The members in rank order.
    pub members: Vec<Member>,
}

/// How a run ends under this coordinator, with its results.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// The kind of end.
    pub outcome: Outcome,
    /// Steps applied.
    pub step: u64,
    /// Mean loss of the last reported step.
    pub loss: Option<f64>,
    /// The last reported validation loss.
    pub val_loss: Option<f64>,
    /// BLAKE3 of the final state, when finished.
    pub state: Option<[u8; 32]>,
    /// Why, unless it finished with its last step.
    pub reason: String,
    /// The last lines of the worker at fault.
    pub tail: Vec<String>,
}

/// The ways in which a run ends under this coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every step is applied and the last checkpoint is committed.
    Finished,
    /// It cannot go on.
    Failed,
    /// A person cancelled it.
    Cancelled,
    /// A person stopped it; it can be resumed.
    Stopped,
    /// The coordinator gives it up without a record: another coordinator may adopt it.
    Released,
}

/// Something that happened to a run, for the clients that watch it.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A worker's process exists.
    WorkerStarted {
        /// Its slot.
        rank: u32,
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// Its node.
        node: NodeId,
    },
    /// A worker's process has ended, or was lost with its node.
    WorkerExited {
        /// Its slot.
        rank: u32,
        /// The worker.
        worker: WorkerId,
        /// Its process id, if it ever had one.
        pid: Option<u32>,
        /// Its node.
        node: NodeId,
        /// How it ended.
        exit: Exit,
        /// Why, in the worker's words or in the core's, if known.
        reason: Option<String>,
        /// The last lines it printed, unless it was told to leave.
        tail: Vec<String>,
    },
    /// A generation is formed.
    Formed {
        /// Its number.
        generation: u64,
        /// The first step it computes.
        step: u64,
        /// Its members.
        workers: u32,
        /// Where its state comes from.
        origin: Origin,
        /// How long the run was without one, from the first sign of trouble with the last one; zero for the first.
        gap: Duration,
    },
    /// A step is applied.
    Step {
        /// Steps applied.
        step: u64,
        /// The generation.
        generation: u64,
        /// Its members.
        workers: u32,
        /// Mean loss.
        loss: f64,
    },
    /// The validation loss is known.
    Evaluated {
        /// Steps applied.
        step: u64,
        /// The loss.
        val_loss: f64,
    },
    /// From now on, the core takes checkpoints at another interval.
    Interval(Interval),
    /// Something went wrong, and the core has handled it.
    Warning {
        /// What went wrong.
        text: String,
        /// The last lines that the process at fault printed.
        tail: Vec<String>,
    },
    /// The run is in another phase.
    Phase {
        /// The phase.
        phase: Phase,
        /// Why.
        detail: String,
    },
    /// The run has ended under this coordinator: its last notice.
    Ended(End),
}
