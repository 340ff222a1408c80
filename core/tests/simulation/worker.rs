//! Simulated worker processes: what they are told, what they say, and the state they hold.

use std::time::Duration;

use whimbrel_core::{Cause, CheckpointEvery, Event, Exit, RunEvent};
use whimbrel_plan::{RunId, WorkerId};

use crate::{
    invariants::same_bits::{self, State},
    queue::{Channel, Machine, Occurrence, ToWorker},
    world::World,
};

const BEAT: Duration = Duration::from_millis(1200);

/// A process; never used twice.
pub(crate) type Pid = u32;

/// A generation's data plane: the coordinator's term, the run and the generation's number.
pub(crate) type MeshKey = (u64, RunId, u64);

/// A worker process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) run: RunId,
    pub(crate) worker: WorkerId,
    /// The coordinator's term in which it was started.
    pub(crate) term: u64,
    pub(crate) machine: Machine,
    /// The name that its machine had then.
    pub(crate) node: u64,
    pub(crate) health: Health,
    /// Its stream to the coordinator is whole.
    pub(crate) connected: bool,
    pub(crate) to: Channel,
    from: Channel,
    /// Its heartbeats are held back until then.
    pub(crate) quiet_until: Duration,
    pub(crate) state: Option<State>,
    /// The generation it is in.
    pub(crate) generation: Option<u64>,
    /// Every step is applied, and the evaluation after the last one goes on.
    pub(crate) evaluating: bool,
    /// Every step is applied, and it stays in its generation.
    pub(crate) completed: bool,
    pub(crate) asked: Flags,
    /// Slices on their way to the store.
    uploads: u32,
    /// A checkpoint was due while somebody's slice of the one before was on its way.
    postponed: bool,
}

/// What works of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// The trainer is stuck; heartbeats go on.
    Stalled,
    /// Nothing moves.
    Hung,
}

/// What the members agree on within a step's all-reduce.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) checkpoint: bool,
    pub(crate) halt: bool,
    /// Somebody's slice is still on its way to the store.
    pub(crate) busy: bool,
}

impl Flags {
    pub(crate) fn or(self, other: Self) -> Self {
        let checkpoint = self.checkpoint || other.checkpoint;
        Self { checkpoint, halt: self.halt || other.halt, busy: self.busy || other.busy }
    }
}

impl Process {
    /// What it says with a step's gradients.
    pub(crate) fn flags(&self) -> Flags {
        Flags { checkpoint: self.asked.checkpoint || self.postponed, busy: self.uploads > 0, ..self.asked }
    }

    /// Every step is applied.
    pub(crate) fn is_through(&self) -> bool {
        self.evaluating || self.completed
    }

    pub(crate) fn mesh(&self) -> Option<MeshKey> {
        self.generation.map(|generation| (self.term, self.run.clone(), generation))
    }
}

impl World {
    pub(crate) fn pid_of(&self, run: &RunId, worker: WorkerId) -> Option<Pid> {
        let is =
            |process: &Process| process.term == self.term && process.worker == worker && process.run == *run;
        self.processes.iter().find(|(_, process)| is(process)).map(|(&pid, _)| pid)
    }

    pub(crate) fn begin_process(&mut self, run: RunId, worker: WorkerId, machine: Machine, node: u64) -> Pid {
        self.last_pid += 1;
        let process = Process {
            run,
            worker,
            term: self.term,
            machine,
            node,
            health: Health::Well,
            connected: true,
            to: Channel::default(),
            from: Channel::default(),
            quiet_until: Duration::ZERO,
            state: None,
            generation: None,
            evaluating: false,
            completed: false,
            asked: Flags::default(),
            uploads: 0,
            postponed: false,
        };
        self.processes.insert(self.last_pid, process);
        let building = self.between(Duration::from_millis(20)..Duration::from_secs(2));
        self.plan_in(building, Occurrence::Built { pid: self.last_pid });
        self.last_pid
    }

    pub(crate) fn worker_built(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        if process.health == Health::Well {
            let (worker, address) = (process.worker, ([127, 0, 0, 1], 7000).into());
            self.report(pid, RunEvent::WorkerReady { worker, address });
            self.plan_in(BEAT, Occurrence::WorkerBeat { pid });
        }
    }

    pub(crate) fn worker_beats(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        if process.health == Health::Hung || !process.connected {
            return;
        }
        if process.quiet_until <= self.now {
            let (worker, step) = (process.worker, process.state.map_or(0, |state| state.step));
            self.report(pid, RunEvent::WorkerHeartbeat { worker, step });
        }
        self.plan_in(BEAT, Occurrence::WorkerBeat { pid });
    }

    pub(crate) fn report(&mut self, pid: Pid, event: RunEvent) {
        let delay = self.delay();
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.connected) else { return };
        let at = process.from.arrival(self.now, delay);
        let event = Event::OfRun { run: process.run.clone(), event };
        self.queue.plan(at, Occurrence::Event { term: process.term, event });
    }

    /// The coordinator hears no more of the worker; the worker may take its time to see it.
    pub(crate) fn break_stream(&mut self, pid: Pid) {
        let Some(worker) = self.processes.get(&pid).map(|process| process.worker) else { return };
        self.report(pid, RunEvent::WorkerDisconnected { worker });
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.connected) else { return };
        process.connected = false;
        let delay = self.between(Duration::from_millis(1)..Duration::from_secs(3));
        self.plan_in(delay, Occurrence::StreamSeenBroken { pid });
    }

    pub(crate) fn stream_seen_broken(&mut self, pid: Pid) {
        if self.is_well(pid) {
            self.end_process(pid, Exit::Code(1));
        }
    }

    pub(crate) fn exits(&mut self, pid: Pid, code: i32) {
        if self.is_well(pid) {
            self.end_process(pid, Exit::Code(code));
        }
    }

    pub(crate) fn is_well(&self, pid: Pid) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.health == Health::Well)
    }

    pub(crate) fn worker_receives(&mut self, pid: Pid, message: ToWorker) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.health != Health::Well || !process.connected {
            return;
        }
        match message {
            ToWorker::Form { generation } => {
                let idle = process.generation.is_none();
                process.generation = Some(generation);
                (process.evaluating, process.completed) = (false, false);
                process.asked = Flags::default();
                process.postponed = false;
                let worker = process.worker;
                self.require(idle, || format!("{worker} was given generation {generation} while in another"));
                self.enter_mesh(pid);
            }
            ToWorker::Ask { generation, checkpoint, halt } if process.generation == Some(generation) => {
                process.asked = process.asked.or(Flags { checkpoint, halt, busy: false });
                if process.completed && checkpoint {
                    self.stage(pid);
                }
            }
            ToWorker::Interrupt { generation } if process.generation == Some(generation) => {
                if let Some(mesh) = process.mesh() {
                    self.break_mesh(&mesh, None);
                }
                self.leave_mesh(pid, generation, "interrupted");
            }
            // Meant for a generation that it has left.
            ToWorker::Ask { .. } | ToWorker::Interrupt { .. } => {}
            ToWorker::Leave => {
                let delay = self.between(Duration::from_millis(1)..Duration::from_millis(300));
                self.plan_in(delay, Occurrence::Exits { pid, code: 0 });
            }
        }
    }

    /// Applies the next step.
    pub(crate) fn apply(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(state) = &mut process.state else { return };
        *state = state.next();
        same_bits::holds(self, pid);
    }

    /// What a member does at a step boundary, the step just applied.
    pub(crate) fn at_boundary(&mut self, pid: Pid, flags: Flags) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let (Some(state), Some(generation)) = (process.state, process.generation) else { return };
        let Some(record) = self.records.get(&process.run) else { return };
        process.asked = Flags::default();
        let (worker, step) = (process.worker, state.step);
        let first = self.meshes.get(&(process.term, process.run.clone(), generation));
        let first = first.is_some_and(|mesh| mesh.formation.members[0].worker == worker);
        let last = step == record.facts.steps;
        let due = match record.facts.checkpoint {
            CheckpointEvery::Steps(every) => step % every == 0,
            CheckpointEvery::Time(_) | CheckpointEvery::Auto => false,
        };
        let due = flags.checkpoint || due;
        let postponed = due && flags.busy && !flags.halt && !last;
        process.postponed = postponed;
        if first {
            self.report(pid, RunEvent::StepApplied { worker, generation, step, loss: 1.0 });
        }
        if postponed {
            self.tally.count("checkpoint postponed");
        } else if due || last {
            self.stage(pid);
        }
        if flags.halt && (!last || self.scenario.halts_at_the_end) {
            self.tally.count("halted as agreed");
            self.halt(pid, Cause::Agreed);
        } else if last {
            self.evaluate(pid);
        }
    }

    /// The evaluation after the last step; what is asked for meanwhile is not seen.
    fn evaluate(&mut self, pid: Pid) {
        let time = self.between(self.scenario.evaluation.clone());
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(generation) = process.generation else { return };
        process.evaluating = true;
        self.plan_in(time, Occurrence::Evaluated { pid, generation });
    }

    pub(crate) fn evaluated(&mut self, pid: Pid, generation: u64) {
        let here = |process: &Process| process.evaluating && process.generation == Some(generation);
        if self.is_well(pid) && self.processes.get(&pid).is_some_and(here) {
            self.complete(pid);
        }
    }

    pub(crate) fn halt(&mut self, pid: Pid, cause: Cause) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(generation) = process.generation.take() else { return };
        (process.evaluating, process.completed) = (false, false);
        let (worker, step) = (process.worker, process.state.map(|state| state.step));
        self.report(pid, RunEvent::Halted { worker, generation, step, cause });
    }

    pub(crate) fn complete(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let (Some(state), Some(generation)) = (process.state, process.generation) else { return };
        (process.evaluating, process.completed) = (false, true);
        let (worker, state) = (process.worker, state.digest());
        self.report(
            pid,
            RunEvent::Completed { worker, generation, state, loss: Some(1.0), val_loss: Some(2.0) },
        );
    }

    /// Stages this worker's slice of a checkpoint; the upload goes on behind the next steps.
    pub(crate) fn stage(&mut self, pid: Pid) {
        let upload = self.between(self.scenario.upload.clone());
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let (Some(state), Some(generation)) = (process.state, process.generation) else { return };
        process.uploads += 1;
        self.plan_in(upload, Occurrence::Uploaded { pid, generation, step: state.step });
    }

    pub(crate) fn uploaded(&mut self, pid: Pid, generation: u64, step: u64) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.uploads -= 1;
        if process.health == Health::Hung {
            return;
        }
        let (worker, run) = (process.worker, process.run.clone());
        let percent = self.scenario.odds.upload;
        if self.goes_wrong(percent) {
            self.tally.count("upload failed");
            self.record_incident(&run, |incidents| incidents.saves += 1);
            self.report(
                pid,
                RunEvent::SliceFailed { worker, generation, step, reason: "store refused".into() },
            );
        } else {
            self.report(pid, RunEvent::SliceSaved { worker, generation, step });
        }
    }
}
