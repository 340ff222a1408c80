//! The event queue: what will happen in the simulated world, and when. It is the simulation's only clock.

use std::{collections::BTreeMap, time::Duration};

use whimbrel_core::Event;
use whimbrel_member::Request;
use whimbrel_plan::{RunId, WorkerId};

use crate::{
    coordinator::Job,
    worker::{MeshKey, Pid},
};

/// A physical machine. It gets another node name each time it joins.
pub(crate) type Machine = u64;

/// Something that happens in the simulated world.
#[derive(Clone, Debug)]
pub(crate) enum Occurrence {
    /// The coordinator's timer.
    Tick { term: u64 },
    /// A message reaches the coordinator of that term.
    Event { term: u64, event: Event },
    /// The driver is done with a job.
    Done { term: u64, run: RunId, job: Job },
    /// The coordinator starts, for the first time or after a crash.
    CoordinatorStarts,
    /// A command reaches an agent.
    ToAgent { machine: Machine, name: u64, command: AgentCommand },
    /// An agent joins, or joins again.
    Join { machine: Machine },
    /// An agent sends a heartbeat.
    NodeBeat { machine: Machine, name: u64 },
    /// A request of the coordinator reaches a worker.
    ToWorker { pid: Pid, request: Request },
    /// A worker's trainer is built.
    Built { pid: Pid },
    /// A worker sends a heartbeat.
    WorkerBeat { pid: Pid },
    /// A worker sees that its stream to the coordinator is broken, and ends.
    StreamSeenBroken { pid: Pid },
    /// A process ends with this code.
    Exits { pid: Pid, code: i32 },
    /// The upload of a slice of a checkpoint succeeds or fails.
    Uploaded { pid: Pid, generation: u64, step: u64 },
    /// A member has computed its part of a step or of an evaluation.
    Computed { pid: Pid, mesh: MeshKey, progress: u64 },
    /// All members get through a meeting, unless something is in the way.
    Met { mesh: MeshKey, progress: u64 },
    /// A member has sent, received or read the state, unless something is in the way.
    Transferred { pid: Pid, mesh: MeshKey },
    /// Members that wait for one of them have waited long enough.
    PeersTimeOut { mesh: MeshKey, progress: u64 },
    /// A member notices that its mesh is broken.
    BreakNoticed { pid: Pid, generation: u64 },
    /// Something goes wrong.
    Fault,
    /// From here on nothing goes wrong, and there are enough nodes.
    Heal,
}

/// A command to an agent.
#[derive(Clone, Debug)]
pub(crate) enum AgentCommand {
    Prepare { run: RunId },
    Start { run: RunId, worker: WorkerId },
    Kill { run: RunId, worker: WorkerId },
}

/// Occurrences in the order of their time; at the same time, in the order in which they were planned.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    planned: BTreeMap<(Duration, u64), Occurrence>,
    count: u64,
}

impl Queue {
    pub(crate) fn plan(&mut self, at: Duration, occurrence: Occurrence) {
        self.count += 1;
        self.planned.insert((at, self.count), occurrence);
    }

    pub(crate) fn next(&mut self) -> Option<(Duration, Occurrence)> {
        self.planned.pop_first().map(|((at, _), occurrence)| (at, occurrence))
    }
}

/// One direction of a stream. Messages arrive in the order in which they were sent, however long each takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Channel {
    last: Duration,
}

impl Channel {
    /// When a message sent now arrives.
    pub(crate) fn arrival(&mut self, now: Duration, delay: Duration) -> Duration {
        self.last = self.last.max(now + delay);
        self.last
    }
}
