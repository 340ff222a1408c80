//! The simulated data plane of a generation. The members meet in it: to join, and to all-reduce a step or an evaluation. All
//! get through a meeting together, or the mesh breaks and some have the result and some have not.

use std::{collections::BTreeMap, time::Duration};

use whimbrel_member::{Action, Event, Phase};
use whimbrel_plan::{Generation, Origin, WorkerId};

use crate::{
    invariants::{
        agreement,
        same_bits::{self, State},
        samples,
    },
    queue::Occurrence,
    worker::{MeshKey, Pid, Process},
    world::World,
};

/// The data plane of a generation.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) generation: Generation,
    /// Who has arrived at the next meeting, with its note.
    arrived: BTreeMap<WorkerId, Vec<u8>>,
    /// Meetings that all members got through; the first one is the join.
    progress: u64,
    broken: bool,
    /// Requests for a checkpoint that its members have received.
    pub(crate) asked: u32,
    /// A checkpoint is due after the step that is computed.
    pub(crate) save_due: bool,
    /// A member could not read the checkpoint.
    restore_failed: bool,
}

impl Mesh {
    pub(crate) fn new(generation: Generation) -> Self {
        Self {
            generation,
            arrived: BTreeMap::new(),
            progress: 0,
            broken: false,
            asked: 0,
            save_due: false,
            restore_failed: false,
        }
    }

    fn all_have_arrived(&self) -> bool {
        self.arrived.len() == self.generation.members.len()
    }

    /// The notes of all members by rank.
    fn notes(&self) -> Vec<Vec<u8>> {
        let members = self.generation.members.iter();
        members.map(|member| self.arrived.get(&member.worker).cloned().unwrap_or_default()).collect()
    }
}

/// Meetings.
impl World {
    /// A member has come to the next meeting.
    pub(crate) fn arrive(&mut self, pid: Pid, note: Vec<u8>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let Some(key) = process.mesh() else { return };
        let worker = process.worker;
        let delay = self.between(Duration::from_millis(1)..self.scenario.step.end);
        let patience = self.patience(&key);
        let Some(mesh) = self.meshes.get_mut(&key) else { return };
        let first = mesh.arrived.is_empty();
        mesh.arrived.insert(worker, note);
        let progress = mesh.progress;
        if mesh.broken {
            self.plan_break_noticed(pid, key.2);
        } else if mesh.all_have_arrived() {
            self.plan_in(delay, Occurrence::Met { mesh: key, progress });
        } else if first {
            self.plan_in(patience, Occurrence::PeersTimeOut { mesh: key, progress });
        }
    }

    /// All members are connected, or have the result of an all-reduce, unless something is in the way.
    pub(crate) fn met(&mut self, key: &MeshKey, progress: u64) {
        if !self.meshes.get(key).is_some_and(|mesh| !mesh.broken && mesh.progress == progress) {
            return;
        }
        let pids = self.members_of(key);
        if !self.all_are_well(key, &pids) {
            return;
        }
        let Some(mesh) = self.meshes.get_mut(key) else { return };
        let notes = mesh.notes();
        mesh.arrived.clear();
        mesh.progress += 1;
        let save_due = std::mem::take(&mut mesh.save_due);
        let generation = mesh.generation.clone();
        if progress == 0 {
            same_bits::sources_hold(self, &generation, &pids);
            // Some members may wait for the state of one that is stuck.
            let patience = self.patience(key);
            self.plan_in(patience, Occurrence::PeersTimeOut { mesh: key.clone(), progress: 1 });
        } else {
            samples::are_computed_once(self, &generation, &pids);
        }
        for &pid in &pids {
            self.deliver(pid, notes.clone());
        }
        if progress > 0 {
            same_bits::are_equal(self, &pids);
        }
        let before = agreement::staged(self, &pids);
        for &pid in &pids {
            self.drive(pid);
        }
        if progress > 0 {
            agreement::all_decide_alike(self, &pids, &before);
        }
        if save_due && agreement::staged(self, &pids) == before {
            self.tally.count("checkpoint postponed");
        }
    }

    /// Gives a member the result of the meeting that it waits for.
    fn deliver(&mut self, pid: Pid, notes: Vec<Vec<u8>>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let event = match process.doing {
            Action::Join { .. } => Event::Joined,
            Action::Step { .. } => {
                let (computed_in, reduced_in) = (Duration::from_millis(2), Duration::from_millis(1));
                Event::Reduced { notes, skipped: None, computed_in, reduced_in }
            }
            Action::Evaluate { .. } => Event::Evaluated { notes },
            _ => return,
        };
        self.handle_in_worker(pid, event);
        let applies = |process: &Process| matches!(process.member.phase(), Some(Phase::Applying(_)));
        if self.processes.get(&pid).is_some_and(applies) {
            self.apply(pid);
        }
    }

    /// Whether every member is there and moves; if not, the others wait out their patience.
    fn all_are_well(&mut self, key: &MeshKey, pids: &[Pid]) -> bool {
        let Some(mesh) = self.meshes.get(key) else { return false };
        let well = pids.len() == mesh.generation.members.len() && pids.iter().all(|&pid| self.is_well(pid));
        if !well {
            let (progress, patience) = (mesh.progress, self.patience(key));
            self.plan_in(patience, Occurrence::PeersTimeOut { mesh: key.clone(), progress });
        }
        well
    }

    /// Members have waited long enough for one that is gone or stuck, or that did not come to the meeting.
    pub(crate) fn peers_time_out(&mut self, key: &MeshKey, progress: u64) {
        let Some(mesh) = self.meshes.get(key).filter(|mesh| !mesh.broken && mesh.progress == progress) else {
            return;
        };
        let unwell = |worker: &WorkerId| self.pid_in(key, *worker).is_none_or(|pid| !self.is_well(pid));
        let mut members = mesh.generation.members.iter().map(|member| member.worker);
        let suspect = members.clone().find(unwell);
        let suspect = suspect.or_else(|| members.find(|worker| !mesh.arrived.contains_key(worker)));
        if suspect.is_some() {
            self.tally.count("peers timed out");
            self.break_mesh(key, suspect);
        }
    }
}

/// The state that a generation starts from.
impl World {
    pub(crate) fn plan_transfer(&mut self, pid: Pid) {
        if let Some(mesh) = self.processes.get(&pid).and_then(Process::mesh) {
            let time = self.between(Duration::from_millis(5)..Duration::from_millis(800));
            self.plan_in(time, Occurrence::Transferred { pid, mesh });
        }
    }

    /// A member has sent, received or read the state, unless something is in the way.
    pub(crate) fn transferred(&mut self, pid: Pid, key: &MeshKey) {
        let here = |process: &&Process| process.mesh().as_ref() == Some(key);
        let Some(process) = self.processes.get(&pid).filter(here) else { return };
        if !self.is_well(pid) {
            return;
        }
        match process.doing.clone() {
            Action::SendState { .. } => {}
            Action::ReceiveState { from } => {
                let Some(mesh) = self.meshes.get(key) else { return };
                let (source, broken) = (mesh.generation.members[from].worker, mesh.broken);
                let source = self.pid_in(key, source).filter(|&source| self.is_well(source));
                let state = source.and_then(|source| self.processes.get(&source)?.state);
                if state.is_none() || broken && self.rng.bool() {
                    return;
                }
                self.set_state(pid, state);
            }
            Action::Restore { step, manifest } => {
                if self.restore_fails(pid, key, &manifest) {
                    return self.drive(pid);
                }
                let record = self.records.get(&key.1);
                let state = record.and_then(|record| {
                    let is_last = record.last.contains(&manifest);
                    Some(State::after(step, &record.bits)?.with_end(is_last))
                });
                self.set_state(pid, state);
            }
            _ => return,
        }
        let state = self.processes.get(&pid).and_then(|process| process.state);
        let is_last = state.is_some_and(|state| state.is_last);
        self.handle_in_worker(pid, Event::StateReady { is_last });
        self.drive(pid);
    }

    /// Whether the checkpoint cannot be read; the worker is told so.
    fn restore_fails(&mut self, pid: Pid, key: &MeshKey, manifest: &str) -> bool {
        let Some(record) = self.records.get(&key.1) else { return false };
        let damaged =
            record.checkpoints.iter().any(|checkpoint| checkpoint.manifest == manifest && checkpoint.damaged);
        let percent = self.scenario.odds.restore;
        if !damaged && !self.goes_wrong(percent) {
            return false;
        }
        self.tally.count(if damaged { "restore: damaged" } else { "restore: out of reach" });
        let first =
            self.meshes.get_mut(key).is_some_and(|mesh| !std::mem::replace(&mut mesh.restore_failed, true));
        self.record_incident(&key.1, |incidents| {
            incidents.breaks += u32::from(first);
            incidents.restores += u32::from(first && !damaged);
        });
        self.handle_in_worker(pid, Event::RestoreFailed { damaged, reason: "its hash differs".into() });
        true
    }
}

/// Breaks.
impl World {
    pub(crate) fn break_mesh_of(&mut self, pid: Pid) {
        if let Some(key) = self.processes.get(&pid).and_then(Process::mesh) {
            let gone = self.processes.get(&pid).map(|process| process.worker);
            self.break_mesh(&key, gone);
        }
    }

    /// The mesh breaks. If an all-reduce is running, any of the members may have got its result before that.
    pub(crate) fn break_mesh(&mut self, key: &MeshKey, suspect: Option<WorkerId>) {
        let Some(mesh) = self.meshes.get_mut(key).filter(|mesh| !mesh.broken) else { return };
        mesh.broken = true;
        let reducing = mesh.progress > 0 && mesh.all_have_arrived();
        let (notes, members) = (mesh.notes(), mesh.generation.members.len());
        let pids = self.members_of(key);
        let all_take_part = pids.len() == members && pids.iter().all(|&pid| self.is_well(pid));
        let some_get_it = reducing && all_take_part && self.rng.bool();
        for pid in pids {
            let Some(process) = self.processes.get(&pid) else { continue };
            if Some(process.worker) == suspect || !self.is_well(pid) {
                continue;
            }
            if some_get_it && self.rng.bool() {
                self.tally.count("applied in a broken step");
                self.deliver(pid, notes.clone());
                self.drive(pid);
            }
            self.plan_break_noticed(pid, key.2);
        }
    }

    fn plan_break_noticed(&mut self, pid: Pid, generation: u64) {
        let delay = self.between(Duration::from_millis(1)..Duration::from_secs(1));
        self.plan_in(delay, Occurrence::BreakNoticed { pid, generation });
    }

    /// A member notices that its mesh is broken, unless it waits at the end of the run, without an operation.
    pub(crate) fn break_noticed(&mut self, pid: Pid, generation: u64) {
        let blocked = |process: &&Process| {
            process.member.generation().is_some_and(|member| member.number == generation)
                && process.doing != Action::Wait
        };
        if self.is_well(pid) && self.processes.get(&pid).filter(blocked).is_some() {
            let reason = "connection reset".to_owned();
            self.handle_in_worker(pid, Event::Broken { reason, suspect: None });
            self.drive(pid);
        }
    }
}

/// Questions.
impl World {
    pub(crate) fn members_of(&self, key: &MeshKey) -> Vec<Pid> {
        let in_it = |process: &Process| process.mesh().as_ref() == Some(key);
        self.processes.iter().filter(|(_, process)| in_it(process)).map(|(&pid, _)| pid).collect()
    }

    fn pid_in(&self, key: &MeshKey, worker: WorkerId) -> Option<Pid> {
        let is = |pid: &Pid| self.processes.get(pid).is_some_and(|process| process.worker == worker);
        self.members_of(key).into_iter().find(is)
    }

    pub(crate) fn progress_of(&self, key: &MeshKey) -> u64 {
        self.meshes.get(key).map_or(0, |mesh| mesh.progress)
    }

    fn patience(&self, key: &MeshKey) -> Duration {
        self.records.get(&key.1).map(|record| record.facts.step_timeout).unwrap_or_default()
    }
}

pub(crate) fn first_step(origin: &Origin) -> u64 {
    match origin {
        Origin::Initial => 0,
        Origin::Checkpoint { step, .. } | Origin::Members { step } => *step,
    }
}
