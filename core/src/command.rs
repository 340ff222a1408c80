//! What is to be done.

use std::time::Duration;

use whimbrel_plan::{Member, NodeId, Origin, RunId, WorkerId};

use crate::{event::Exit, interval::Interval, view::Phase};

/// Something is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Have a node run the run's `setup`. Answered by `Prepared` or `PrepareFailed`.
    Prepare {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
    },
    /// Have a node start a worker. Answered by `WorkerStarted`, and in the end by `WorkerExited`.
    Start {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
        /// The worker, by a name never used before in the run and epoch.
        worker: WorkerId,
    },
    /// Have a node end a worker's process with SIGKILL.
    Kill {
        /// The run.
        run: RunId,
        /// The node.
        node: NodeId,
        /// The worker.
        worker: WorkerId,
    },
    /// Hand every member its generation.
    Form {
        /// The run.
        run: RunId,
        /// The generation.
        formation: Formation,
    },
    /// Ask a member to bring about a checkpoint or a halt at the next step boundary.
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
    /// Have a member leave its generation at once.
    Interrupt {
        /// The run.
        run: RunId,
        /// The member.
        worker: WorkerId,
        /// The generation.
        generation: u64,
    },
    /// Have a worker end itself.
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
    /// Forget the slices of a checkpoint that will never be whole.
    Discard {
        /// The run.
        run: RunId,
        /// The generation that staged it.
        generation: u64,
        /// Steps applied to it.
        step: u64,
    },
    /// Find out whether a checkpoint is damaged in every store, and record it if so. Answered by `Quarantined` or `TermLost`.
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
    /// Tell whoever watches the run.
    Announce {
        /// The run.
        run: RunId,
        /// What.
        notice: Notice,
    },
}

/// A generation, but for what only the driver has: the epoch's and the data plane's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formation {
    /// Its number.
    pub number: u64,
    /// Where its state comes from.
    pub origin: Origin,
    /// The members in rank order.
    pub members: Vec<Member>,
}

/// How a run ends under this coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// Steps applied.
    pub step: u64,
    /// Mean loss of the last step that was heard of.
    pub loss: Option<f64>,
    /// The last validation loss that was heard of.
    pub val_loss: Option<f64>,
    /// BLAKE3 of the final state, when finished.
    pub state: Option<[u8; 32]>,
    /// Why, unless finished.
    pub reason: String,
    /// The last lines of the worker at fault.
    pub tail: Vec<String>,
}

/// How a run ends under this coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every step is applied and the last checkpoint is committed.
    Finished,
    /// It cannot go on.
    Failed,
    /// A person ended it.
    Cancelled,
    /// A person stopped it; it can be resumed.
    Stopped,
    /// The coordinator lets go of it without a record: another one may go on with it.
    Released,
}

/// Something that whoever watches a run wants to know.
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
    /// A worker's process has ended, or is given up.
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
        /// What is known beyond that.
        reason: Option<String>,
        /// Its last lines, unless it ended as it was told to.
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
        /// How long the run was without one, from the first sign of trouble with the last; zero for the first.
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
    /// The core takes checkpoints at another interval from now on.
    Interval(Interval),
    /// Something went wrong and is handled.
    Warning {
        /// What.
        text: String,
        /// The last lines of what was at fault.
        tail: Vec<String>,
    },
    /// The run is in another phase.
    Phase {
        /// The phase.
        phase: Phase,
        /// Why.
        detail: String,
    },
    /// The coordinator has let go of the run: the last notice.
    Ended(End),
}
