//! Faults, drawn from the seed, until the world heals.

use std::time::Duration;

use whimbrel_core::{Event, Exit, RunEvent};
use whimbrel_plan::RunId;

use crate::{
    queue::{Machine, Occurrence},
    scenario::Fault,
    worker::{Health, Pid},
    world::World,
};

impl World {
    pub(crate) fn plan_fault(&mut self) {
        if !self.scenario.faults.is_empty() {
            let gap = self.between(Duration::from_millis(1)..self.scenario.fault_every * 2);
            self.plan_in(gap, Occurrence::Fault);
        }
    }

    pub(crate) fn fault_strikes(&mut self) {
        if self.healed {
            return;
        }
        let drawn = self.rng.usize(0..self.scenario.faults.len());
        let fault = self.scenario.faults[drawn];
        if self.strike(fault) {
            self.trace.note(self.now, "!!", &fault);
            self.tally.count(format!("fault: {fault:?}"));
        }
        self.plan_fault();
    }

    /// Returns whether there was anything for the fault to strike.
    fn strike(&mut self, fault: Fault) -> bool {
        let (pid, machine, run) = (self.some_process(), self.some_machine(), self.some_run());
        match fault {
            Fault::Kill => pid.map(|pid| self.end_process(pid, Exit::Signal(9))),
            Fault::Hang => pid.map(|pid| self.set_health(pid, Health::Hung)),
            Fault::Stall => pid.map(|pid| self.set_health(pid, Health::Stalled)),
            Fault::TrainerFails => pid.map(|pid| self.trainer_fails(pid)),
            Fault::WorkerLinkBreaks => pid.map(|pid| self.break_stream(pid)),
            Fault::WorkerGoesQuiet => pid.map(|pid| self.mute(pid)),
            Fault::PeerLinkBreaks => {
                let mesh = pid.and_then(|pid| self.processes.get(&pid)?.mesh());
                let mesh = mesh.filter(|mesh| self.members_of(mesh).len() > 1);
                mesh.map(|mesh| {
                    self.record_incident(&mesh.1, |incidents| incidents.breaks += 1);
                    self.break_mesh(&mesh, None);
                })
            }
            Fault::NodeLost => machine.map(|machine| self.remove_machine(machine)),
            Fault::NodeFreezes => machine.map(|machine| self.freeze(machine)),
            Fault::NodeLinkBreaks => machine.map(|machine| self.agent_starts_over(machine)),
            Fault::NodeGoesQuiet => machine.map(|machine| {
                let until = self.now + Duration::from_secs(8);
                if let Some(node) = self.machines.get_mut(&machine) {
                    node.quiet_until = until;
                }
            }),
            Fault::NodeJoins => {
                let slots = self.rng.u32(1..4);
                (self.machines.len() < 8).then(|| self.add_machine(slots))
            }
            Fault::CheckpointDamaged => run.and_then(|run| self.damage_checkpoint(&run)),
            Fault::CoordinatorCrashes => self.core.is_some().then(|| self.coordinator_crashes()),
            Fault::EndWanted => pid.and_then(|pid| self.want_end(pid)),
            Fault::Stop => run.map(|run| self.request(run, RunEvent::StopRequested { record: true })),
            Fault::Cancel => run.map(|run| self.request(run, RunEvent::CancelRequested)),
            Fault::TermLost => {
                run.map(|run| self.request(run, RunEvent::TermLost { reason: "epoch 99".into() }))
            }
        }
        .is_some()
    }

    /// From here on nothing goes wrong, and a new node offers as many slots as all runs can use.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.trace.note(self.now, "!!", &"healed");
        let wanted: u32 = self.scenario.runs.iter().map(|facts| facts.workers_max).sum();
        self.add_machine(wanted);
    }

    fn some_process(&mut self) -> Option<Pid> {
        let well: Vec<Pid> = self.processes.keys().copied().filter(|&pid| self.is_well(pid)).collect();
        self.rng.choice(well)
    }

    fn some_machine(&mut self) -> Option<Machine> {
        let joined = |(_, node): &(&Machine, &crate::nodes::Node)| !node.frozen && node.name.is_some();
        let joined: Vec<Machine> = self.machines.iter().filter(joined).map(|(&machine, _)| machine).collect();
        self.rng.choice(joined)
    }

    fn some_run(&mut self) -> Option<RunId> {
        let runs: Vec<RunId> = self.records.keys().cloned().collect();
        self.rng.choice(runs)
    }

    fn disturb(&mut self, pid: Pid) {
        if let Some(run) = self.processes.get(&pid).map(|process| process.run.clone()) {
            self.record_incident(&run, |_| ());
        }
    }

    fn set_health(&mut self, pid: Pid, health: Health) {
        self.disturb(pid);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.health = health;
        }
    }

    fn mute(&mut self, pid: Pid) {
        self.disturb(pid);
        let until = self.now + Duration::from_secs(8);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.quiet_until = until;
        }
    }

    fn trainer_fails(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (worker, run) = (process.worker, process.run.clone());
        let fatal = self.rng.u32(0..50) == 0;
        if fatal {
            self.tally.count("fatal failure of a trainer");
            self.record_incident(&run, |incidents| incidents.fatal += 1);
        }
        self.report(pid, RunEvent::TrainerFailed { worker, reason: "loss of signal".into(), fatal });
        self.end_process(pid, Exit::Code(1));
    }

    /// The program of one worker wants its run to end early.
    fn want_end(&mut self, pid: Pid) -> Option<()> {
        let process = self.processes.get_mut(&pid)?;
        process.member.end_run();
        self.records.get_mut(&process.run)?.end_wanted = true;
        Some(())
    }

    fn freeze(&mut self, machine: Machine) {
        for pid in self.pids_on(machine) {
            self.set_health(pid, Health::Hung);
        }
        if let Some(node) = self.machines.get_mut(&machine) {
            node.frozen = true;
        }
    }

    fn damage_checkpoint(&mut self, run: &RunId) -> Option<()> {
        let record = self.records.get_mut(run)?;
        let newest = record.checkpoints.iter_mut().filter(|found| !found.quarantined);
        let newest = newest.max_by_key(|found| found.step).filter(|found| !found.damaged)?;
        newest.damaged = true;
        Some(())
    }

    fn request(&mut self, run: RunId, event: RunEvent) {
        let term = self.term;
        self.plan_in(Duration::ZERO, Occurrence::Event { term, event: Event::OfRun { run, event } });
    }
}
