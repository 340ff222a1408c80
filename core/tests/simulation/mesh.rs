//! The simulated data plane of a generation: all members get through a step together, or the mesh breaks and some have
//! applied it and some not.

use std::{collections::BTreeSet, time::Duration};

use whimbrel_core::{Cause, Formation, RunEvent};
use whimbrel_plan::{Origin, WorkerId};

use crate::{
    invariants::same_bits::{self, State},
    queue::Occurrence,
    worker::{Flags, Health, MeshKey, Pid},
    world::World,
};

/// The data plane of a generation.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) formation: Formation,
    entered: BTreeSet<WorkerId>,
    /// All members have the state.
    synced: bool,
    /// Counts what they have got through together.
    progress: u64,
    broken: bool,
}

impl Mesh {
    pub(crate) fn new(formation: Formation) -> Self {
        Self { formation, entered: BTreeSet::new(), synced: false, progress: 0, broken: false }
    }

    fn is_full(&self) -> bool {
        self.entered.len() == self.formation.members.len()
    }
}

impl World {
    pub(crate) fn enter_mesh(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        let Some((key, generation)) = process.mesh().zip(process.generation) else { return };
        let (worker, patience) = (process.worker, self.patience(&key));
        let Some(mesh) = self.meshes.get_mut(&key) else { return };
        mesh.entered.insert(worker);
        if mesh.broken {
            self.plan_break_noticed(pid, generation);
        } else if mesh.is_full() {
            let time = self.between(Duration::from_millis(5)..Duration::from_millis(800));
            self.plan_in(time, Occurrence::Synced { mesh: key });
        } else if mesh.entered.len() == 1 {
            self.plan_in(patience, Occurrence::PeersTimeOut { mesh: key, progress: 0 });
        }
    }

    /// Every member gets the state that the generation starts from.
    pub(crate) fn synced(&mut self, key: &MeshKey) {
        let Some(mesh) = self.meshes.get(key).filter(|mesh| !mesh.broken) else { return };
        let (formation, pids) = (mesh.formation.clone(), self.members_of(key));
        if !self.all_are_well(key, &pids) {
            return;
        }
        if let Origin::Checkpoint { manifest, .. } = &formation.origin
            && self.restore_fails(key, manifest, &pids)
        {
            return;
        }
        same_bits::sources_hold(self, &formation, &pids);
        for &pid in &pids {
            self.receive_state(pid, &formation.origin);
        }
        let Some(mesh) = self.meshes.get_mut(key) else { return };
        mesh.synced = true;
        mesh.progress += 1;
        let steps = self.records.get(&key.1).map(|record| record.facts.steps);
        if Some(first_step(&formation.origin)) != steps {
            return self.plan_step(key);
        }
        for pid in pids {
            if !matches!(formation.origin, Origin::Checkpoint { .. }) {
                self.stage(pid);
            }
            self.complete(pid);
        }
    }

    fn receive_state(&mut self, pid: Pid, origin: &Origin) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(record) = self.records.get(&process.run) else { return };
        let step = first_step(origin);
        let kept =
            process.state.filter(|state| matches!(origin, Origin::Members { .. }) && state.step == step);
        process.state = kept.or_else(|| State::after(step, &record.bits));
        same_bits::holds(self, pid);
    }

    /// Whether the checkpoint cannot be read, by some members at least, which say so and leave.
    fn restore_fails(&mut self, key: &MeshKey, manifest: &str, pids: &[Pid]) -> bool {
        let Some(record) = self.records.get(&key.1) else { return false };
        let is_damaged = |damaged: &crate::world::Checkpoint| damaged.manifest == manifest && damaged.damaged;
        let damaged = record.checkpoints.iter().any(is_damaged);
        let percent = self.scenario.odds.restore;
        if !damaged && !self.goes_wrong(percent) {
            return false;
        }
        self.tally.count(if damaged { "restore: damaged" } else { "restore: out of reach" });
        self.record_incident(&key.1, |incidents| incidents.restores += u32::from(!damaged));
        let one = pids[self.rng.usize(0..pids.len())];
        for &pid in pids {
            if pid != one && self.rng.bool() {
                continue;
            }
            let Some(process) = self.processes.get_mut(&pid) else { continue };
            (process.generation, process.state) = (None, None);
            let (worker, generation, manifest) = (process.worker, key.2, manifest.to_owned());
            let reason = "its hash differs".into();
            self.report(pid, RunEvent::RestoreFailed { worker, generation, manifest, damaged, reason });
        }
        self.break_mesh(key, None);
        true
    }

    fn plan_step(&mut self, key: &MeshKey) {
        let time = self.between(self.scenario.step.clone());
        if let Some(mesh) = self.meshes.get(key) {
            self.plan_in(time, Occurrence::Reduced { mesh: key.clone(), progress: mesh.progress });
        }
    }

    /// All members have the step's sum, and apply it.
    pub(crate) fn reduced(&mut self, key: &MeshKey, progress: u64) {
        let current = |mesh: &&mut Mesh| !mesh.broken && mesh.progress == progress;
        if self.meshes.get_mut(key).filter(current).is_none() {
            return;
        }
        let pids = self.members_of(key);
        if !self.all_are_well(key, &pids) {
            return;
        }
        let flags = self.flags_of(&pids);
        if let Some(mesh) = self.meshes.get_mut(key) {
            mesh.progress += 1;
        }
        for &pid in &pids {
            self.apply(pid);
        }
        same_bits::are_equal(self, &pids);
        for &pid in &pids {
            self.at_boundary(pid, flags);
        }
        let goes_on = |pid: &Pid| {
            self.processes
                .get(pid)
                .is_some_and(|process| process.generation.is_some() && !process.is_through())
        };
        if pids.iter().all(goes_on) {
            self.plan_step(key);
        }
    }

    /// Whether every member is there and moves; if not, the others wait out their patience.
    fn all_are_well(&mut self, key: &MeshKey, pids: &[Pid]) -> bool {
        let Some(mesh) = self.meshes.get(key) else { return false };
        let well = pids.len() == mesh.formation.members.len() && pids.iter().all(|&pid| self.is_well(pid));
        if !well {
            let (progress, patience) = (mesh.progress, self.patience(key));
            self.plan_in(patience, Occurrence::PeersTimeOut { mesh: key.clone(), progress });
        }
        well
    }

    pub(crate) fn peers_time_out(&mut self, key: &MeshKey, progress: u64) {
        let Some(mesh) = self.meshes.get(key).filter(|mesh| !mesh.broken && mesh.progress == progress) else {
            return;
        };
        let absent = |worker: &WorkerId| {
            self.pid_of(&key.1, *worker).is_none_or(|pid| !self.is_well(pid))
                || !mesh.entered.contains(worker)
        };
        let suspect = mesh.formation.members.iter().map(|member| member.worker).find(absent);
        if suspect.is_some() {
            self.tally.count("peers timed out");
            self.break_mesh(key, suspect);
        }
    }

    pub(crate) fn break_mesh_of(&mut self, pid: Pid) {
        if let Some(key) = self.processes.get(&pid).and_then(|process| process.mesh()) {
            let gone = self.processes.get(&pid).map(|process| process.worker);
            self.break_mesh(&key, gone);
        }
    }

    /// The mesh breaks. With a step in flight, any of the members may have got its sum before that.
    pub(crate) fn break_mesh(&mut self, key: &MeshKey, suspect: Option<WorkerId>) {
        let Some(mesh) = self.meshes.get_mut(key).filter(|mesh| !mesh.broken) else { return };
        mesh.broken = true;
        let (in_flight, members) = (mesh.synced, mesh.formation.members.len());
        let pids = self.members_of(key);
        let flags = self.flags_of(&pids);
        let all_take_part = pids.len() == members && pids.iter().all(|&pid| self.is_well(pid));
        let some_get_it = in_flight && all_take_part && self.rng.bool();
        for pid in pids {
            let Some(process) = self.processes.get(&pid) else { continue };
            let dies = Some(process.worker) == suspect;
            if process.completed || dies || process.health != Health::Well {
                continue;
            }
            if some_get_it && !process.evaluating && self.rng.bool() {
                self.tally.count("applied in a broken step");
                self.apply(pid);
                self.at_boundary(pid, flags);
            }
            self.plan_break_noticed(pid, key.2);
        }
    }

    fn plan_break_noticed(&mut self, pid: Pid, generation: u64) {
        let delay = self.between(Duration::from_millis(1)..Duration::from_secs(1));
        self.plan_in(delay, Occurrence::BreakNoticed { pid, generation });
    }

    pub(crate) fn break_noticed(&mut self, pid: Pid, generation: u64) {
        let here = |process: &&crate::worker::Process| process.generation == Some(generation);
        let Some(process) = self.processes.get(&pid).filter(here) else { return };
        if process.health == Health::Well && !process.completed {
            self.leave_mesh(pid, generation, "connection reset");
        }
    }

    /// A member leaves a mesh that does not work any more, with whatever state it has by then.
    pub(crate) fn leave_mesh(&mut self, pid: Pid, generation: u64, reason: &str) {
        let Some(process) = self.processes.get(&pid).filter(|process| process.generation == Some(generation))
        else {
            return;
        };
        let key = process.mesh();
        if let Some(mesh) = key.and_then(|key| self.meshes.get(&key)).filter(|mesh| !mesh.synced) {
            let (origin, first) = (mesh.formation.origin.clone(), first_step(&mesh.formation.origin));
            let holds = matches!(origin, Origin::Members { .. })
                && process.state.is_some_and(|state| state.step == first);
            if !holds {
                self.leave_while_receiving(pid, &origin);
            }
        }
        self.tally.count("halted, broken");
        self.halt(pid, Cause::Broken { reason: reason.into(), suspect: None });
    }

    /// The state it was about to get may have arrived, or be half there and of no use; or the old one is still whole.
    fn leave_while_receiving(&mut self, pid: Pid, origin: &Origin) {
        let may_have_it = match origin {
            Origin::Initial => true,
            Origin::Checkpoint { manifest, .. } => {
                let run = self.processes.get(&pid).map(|process| process.run.clone());
                let record = run.and_then(|run| self.records.get(&run));
                record.is_some_and(|record| {
                    record.checkpoints.iter().any(|found| found.manifest == *manifest && !found.damaged)
                })
            }
            Origin::Members { .. } => false,
        };
        match self.rng.u32(0..3) {
            0 if may_have_it => self.receive_state(pid, origin),
            1 => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.state = None;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn members_of(&self, key: &MeshKey) -> Vec<Pid> {
        let in_it = |process: &crate::worker::Process| process.mesh().as_ref() == Some(key);
        self.processes.iter().filter(|(_, process)| in_it(process)).map(|(&pid, _)| pid).collect()
    }

    fn flags_of(&self, pids: &[Pid]) -> Flags {
        let flags = pids.iter().filter_map(|pid| self.processes.get(pid)).map(crate::worker::Process::flags);
        flags.fold(Flags::default(), Flags::or)
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
