//! What will happen, and when: the simulation's only clock.

use std::{collections::BTreeMap, time::Duration};

use whimbrel_core::Event;
use whimbrel_plan::{RunId, WorkerId};

use crate::{
    coordinator::Job,
    worker::{MeshKey, Pid},
};

/// A physical machine; it bears another node name each time it joins.
pub(crate) type Machine = u64;

/// Something that happens in the simulated world.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// The coordinator's timer.
    Tick { term: u64 },
    /// A message reaches the coordinator of that term.
    Event { term: u64, event: Event },
    /// The driver is done with a job.
    Done { term: u64, run: RunId, job: Job },
    /// The coordinator starts, for the first time or after a crash.
    CoordinatorStarts,
    /// An order reaches an agent.
    Order { machine: Machine, name: u64, order: Order },
    /// An agent joins, anew if it has before.
    Join { machine: Machine },
    /// An agent shows that it lives.
    NodeBeat { machine: Machine, name: u64 },
    /// A command reaches a worker.
    ToWorker { pid: Pid, message: ToWorker },
    /// A worker's trainer is built.
    Built { pid: Pid },
    /// A worker shows that it lives.
    WorkerBeat { pid: Pid },
    /// A worker sees that its coordinator is gone, and ends.
    StreamSeenBroken { pid: Pid },
    /// A process ends with that code.
    Exits { pid: Pid, code: i32 },
    /// A slice of a checkpoint is uploaded, or is not.
    Uploaded { pid: Pid, generation: u64, step: u64 },
    /// The evaluation after a member's last step is over.
    Evaluated { pid: Pid, generation: u64 },
    /// All members of a generation have the state, unless something is in the way.
    Synced { mesh: MeshKey },
    /// The all-reduce of a step ends, unless something is in the way.
    Reduced { mesh: MeshKey, progress: u64 },
    /// Members that wait for one of them have waited long enough.
    PeersTimeOut { mesh: MeshKey, progress: u64 },
    /// A member notices that its mesh is broken.
    BreakNoticed { pid: Pid, generation: u64 },
    /// Something goes wrong.
    Fault,
    /// Nothing goes wrong any more, and there are nodes enough.
    Heal,
}

/// What an agent is told.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Prepare { run: RunId },
    Start { run: RunId, worker: WorkerId },
    Kill { run: RunId, worker: WorkerId },
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub(crate) enum ToWorker {
    Form { generation: u64 },
    Ask { generation: u64, checkpoint: bool, halt: bool },
    Interrupt { generation: u64 },
    Leave,
}

/// Happenings in the order of their time, and among equals in the order in which they were planned.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    planned: BTreeMap<(Duration, u64), Happening>,
    count: u64,
}

impl Agenda {
    pub(crate) fn plan(&mut self, at: Duration, happening: Happening) {
        self.count += 1;
        self.planned.insert((at, self.count), happening);
    }

    pub(crate) fn next(&mut self) -> Option<(Duration, Happening)> {
        self.planned.pop_first().map(|((at, _), happening)| (at, happening))
    }
}

/// One direction of a stream: what is sent first arrives first, however long each message takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    last: Duration,
}

impl Link {
    /// When a message sent now arrives.
    pub(crate) fn arrival(&mut self, now: Duration, delay: Duration) -> Duration {
        self.last = self.last.max(now + delay);
        self.last
    }
}
