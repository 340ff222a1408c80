//! Simulated worker processes: the real decisions of `whimbrel-member`, performed on simulated memory, streams and stores.
//!
//! [`World::drive`] is the driver: it asks the worker for its next action and performs it. Actions with the peers go through
//! the generation's [`mesh`](crate::mesh).

use std::time::Duration;

use whimbrel_core::{Cause, CheckpointEvery, Completion, Event, Exit, RunEvent};
use whimbrel_member::{Action, End, Phase, Report, Request, Requests, Schedule, Worker, encode_parts};
use whimbrel_plan::{RunId, WorkerId};

use crate::{
    invariants::{
        same_bits::{self, State},
        saves::{self, Saves},
    },
    queue::{Channel, Machine, Occurrence},
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
    /// The program's memory: the state that it truly holds, whatever the worker believes.
    pub(crate) state: Option<State>,
    /// The real decisions of a worker.
    pub(crate) member: Worker,
    /// What its coordinator has asked of it.
    pub(crate) requests: Requests,
    /// The action that it performs; `Wait` at first.
    pub(crate) doing: Action,
    /// Slices that are being uploaded.
    uploads: u32,
    /// How often it was asked for a checkpoint in each generation, and how often it staged each checkpoint.
    pub(crate) saves: Saves,
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

impl Process {
    /// The data plane of the generation that it is a member of.
    pub(crate) fn mesh(&self) -> Option<MeshKey> {
        let generation = self.member.generation()?;
        Some((self.term, self.run.clone(), generation.number))
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
        let schedule = self.schedule(&run);
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
            state: Some(State::INITIAL),
            member: Worker::new(worker, schedule),
            requests: Requests::default(),
            doing: Action::Wait,
            uploads: 0,
            saves: Saves::default(),
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
            let (worker, step) = (process.worker, process.member.held().step().unwrap_or(0));
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
        if let Some(process) = self.processes.get_mut(&pid).filter(|process| process.health == Health::Well) {
            process.requests.end(End::Lost);
            self.requests_changed(pid);
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

    /// A request of the coordinator arrives.
    pub(crate) fn worker_receives(&mut self, pid: Pid, request: Request) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.health != Health::Well || !process.connected {
            return;
        }
        let mesh = process.mesh();
        process.saves.note_request(&request);
        if let (Request::Ask { generation, checkpoint: true, .. }, Some(key)) = (&request, &mesh)
            && *generation == key.2
            && let Some(mesh) = self.meshes.get_mut(key)
        {
            mesh.asked += 1;
        }
        process.requests.take(request.clone());
        if let Request::Generation(generation) = request {
            self.require(mesh.is_none(), || {
                format!("while a member of {mesh:?}, a worker gets {generation:?}")
            });
        }
        self.requests_changed(pid);
    }

    /// A worker that waits looks at its requests; an operation of a generation that is called off fails.
    fn requests_changed(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        let number = process.member.generation().map(|generation| generation.number);
        if process.doing == Action::Wait {
            if process.member.wakes(&process.requests) {
                self.drive(pid);
            }
        } else if number.is_some_and(|number| process.requests.calls_off(number)) {
            let reason = "the generation was interrupted".to_owned();
            self.handle_in_worker(pid, whimbrel_member::Event::Broken { reason, suspect: None });
            self.drive(pid);
        }
    }

    /// Performs the worker's actions until one takes time.
    pub(crate) fn drive(&mut self, pid: Pid) {
        while self.violation.is_none()
            && let Some(action) = self.next_action(pid)
        {
            match action {
                Action::Wait => return,
                Action::Join { .. } => return self.arrive(pid, Vec::new()),
                Action::SendState { .. } => return self.plan_transfer(pid),
                Action::ReceiveState { .. } | Action::Restore { .. } => {
                    // The program's memory is overwritten from here on.
                    self.set_state(pid, None);
                    return self.plan_transfer(pid);
                }
                Action::Initialise => self.set_state(pid, Some(State::INITIAL)),
                Action::Step { .. } => {
                    let time = self.between(self.scenario.step.clone());
                    return self.plan_computed(pid, time);
                }
                Action::Evaluate { .. } => {
                    let time = self.between(self.scenario.evaluation.clone());
                    return self.plan_computed(pid, time);
                }
                Action::Stage { generation, step, .. } => self.stage(pid, generation, step),
                Action::Hash { .. } => {
                    let state = self.processes.get(&pid).and_then(|process| process.state);
                    let state = state.map(State::digest).unwrap_or_default();
                    self.handle_in_worker(pid, whimbrel_member::Event::Hashed { state });
                }
                // Its connections were closed when it left.
                Action::Leave => {}
                Action::End(end) => {
                    let code = i32::from(end == End::Lost);
                    let delay = self.between(Duration::from_millis(1)..Duration::from_millis(300));
                    return self.plan_in(delay, Occurrence::Exits { pid, code });
                }
            }
        }
    }

    fn next_action(&mut self, pid: Pid) -> Option<Action> {
        let process = self.processes.get_mut(&pid).filter(|process| process.health == Health::Well)?;
        let before = process.mesh();
        let next = process.member.next(&process.requests);
        if let Ok(action) = &next {
            process.doing = action.clone();
        }
        self.send_reports(pid, before);
        match next {
            Ok(action) => Some(action),
            Err(contradiction) => {
                self.require(false, || contradiction.to_string());
                None
            }
        }
    }

    /// Passes the result of an action to the worker.
    pub(crate) fn handle_in_worker(&mut self, pid: Pid, event: whimbrel_member::Event) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let before = process.mesh();
        process.member.handle(event);
        self.send_reports(pid, before);
    }

    /// Sends what the worker reports; one that has left a generation closes its connections first.
    fn send_reports(&mut self, pid: Pid, before: Option<MeshKey>) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let reports = process.member.take_reports();
        if process.mesh() != before
            && let Some(left) = before
        {
            self.break_mesh(&left, None);
        }
        for report in reports {
            self.send_report(pid, report);
        }
        same_bits::is_held(self, pid);
    }

    fn send_report(&mut self, pid: Pid, report: Report) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (worker, run) = (process.worker, process.run.clone());
        let event = match report {
            Report::StepApplied { generation, step, loss, .. } => {
                RunEvent::StepApplied { worker, generation, step, loss }
            }
            Report::Evaluated { step, val_loss, .. } => RunEvent::Evaluated { step, val_loss },
            Report::SliceFailed { generation, step, reason } => {
                self.record_incident(&run, |incidents| incidents.saves += 1);
                RunEvent::SliceFailed { worker, generation, step, reason }
            }
            Report::RestoreFailed { generation, manifest, damaged, reason } => {
                RunEvent::RestoreFailed { worker, generation, manifest, damaged, reason }
            }
            Report::Halted { generation, step, cause } => {
                let cause = match cause {
                    whimbrel_member::Cause::Agreed => Cause::Agreed,
                    whimbrel_member::Cause::Broken { reason, suspect } => Cause::Broken { reason, suspect },
                };
                let agreed = cause == Cause::Agreed;
                self.tally.count(if agreed { "halted as agreed" } else { "halted, broken" });
                RunEvent::Halted { worker, generation, step, cause }
            }
            Report::Completed { generation, step, state, loss, val_loss } => {
                let completion = Completion { step, state, loss, val_loss };
                RunEvent::Completed { worker, generation, completion }
            }
        };
        self.report(pid, event);
    }

    fn plan_computed(&mut self, pid: Pid, time: Duration) {
        if let Some(mesh) = self.processes.get(&pid).and_then(Process::mesh) {
            let progress = self.progress_of(&mesh);
            self.plan_in(time, Occurrence::Computed { pid, mesh, progress });
        }
    }

    /// The program has computed its shards or its parts of an evaluation: the worker writes its note for the all-reduce.
    pub(crate) fn computed(&mut self, pid: Pid, mesh: &MeshKey, progress: u64) {
        if !self.is_well(pid) || self.progress_of(mesh) != progress {
            return;
        }
        let Some(process) = self.processes.get(&pid).filter(|process| process.mesh().as_ref() == Some(mesh))
        else {
            return;
        };
        let note = match &process.doing {
            Action::Step { step, shards } => {
                let losses = vec![1.0; shards.len()];
                let note = process.member.step_note(&process.requests, process.uploads > 0, losses);
                let save_due = note.checkpoint || self.schedule(&process.run).saves_at(step + 1);
                if let Some(mesh) = self.meshes.get_mut(mesh) {
                    mesh.save_due |= save_due;
                }
                note.encode()
            }
            Action::Evaluate { parts, .. } => encode_parts(&vec![Some(2.0); parts.len()]),
            _ => return,
        };
        self.arrive(pid, note);
    }

    pub(crate) fn set_state(&mut self, pid: Pid, state: Option<State>) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.state = state;
        }
        same_bits::holds(self, pid);
    }

    /// The program applies the sum of a step.
    pub(crate) fn apply(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        let is_last = matches!(process.member.phase(), Some(Phase::Applying(reduced)) if reduced.is_last());
        let state = process.state.map(|state| state.next().with_end(is_last));
        self.set_state(pid, state);
    }

    pub(crate) fn schedule(&self, run: &RunId) -> Schedule {
        let facts = self.records.get(run).map(|record| &record.facts);
        let checkpoint_every = facts.and_then(|facts| match facts.checkpoint {
            CheckpointEvery::Steps(every) => Some(every),
            CheckpointEvery::Time(_) | CheckpointEvery::Auto => None,
        });
        Schedule {
            steps: facts.map_or(0, |facts| facts.steps),
            evaluate_every: self.scenario.evaluate_every,
            checkpoint_every,
        }
    }

    /// Stages this worker's slice of a checkpoint; the upload goes on behind the next steps.
    fn stage(&mut self, pid: Pid, generation: u64, step: u64) {
        let upload = self.between(self.scenario.upload.clone());
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.uploads += 1;
        process.saves.note_staged(generation, step);
        let (run, term) = (process.run.clone(), process.term);
        if process.state.is_some_and(|state| state.is_last)
            && let Some(record) = self.records.get_mut(&run)
        {
            record.last.insert(manifest_name(step, term, generation));
        }
        saves::begins_once(self, pid, generation, step);
        self.plan_in(upload, Occurrence::Uploaded { pid, generation, step });
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

/// The name of a checkpoint's manifest.
pub(crate) fn manifest_name(step: u64, term: u64, generation: u64) -> String {
    format!("{step}-{term}-{generation}")
}
