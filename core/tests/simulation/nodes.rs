//! Simulated machines and the agents on them.

use std::time::Duration;

use whimbrel_core::{Event, Exit, RunEvent};
use whimbrel_plan::{NodeId, RunId, WorkerId};

use crate::{
    invariants::slots,
    queue::{AgentCommand, Channel, Machine, Occurrence},
    world::World,
};

const BEAT: Duration = Duration::from_millis(1500);

/// A machine with an agent.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) slots: u32,
    /// The name under which it has joined the coordinator, if it has.
    pub(crate) name: Option<u64>,
    pub(crate) to: Channel,
    pub(crate) from: Channel,
    /// It does nothing any more and sends nothing.
    pub(crate) frozen: bool,
    /// Its heartbeats do not arrive until then.
    pub(crate) quiet_until: Duration,
}

impl World {
    pub(crate) fn add_machine(&mut self, slots: u32) {
        let machine = self.machines.keys().next_back().map_or(0, |last| last + 1);
        let node = Node {
            slots,
            name: None,
            to: Channel::default(),
            from: Channel::default(),
            frozen: false,
            quiet_until: Duration::ZERO,
        };
        self.machines.insert(machine, node);
        let delay = self.delay();
        self.plan_in(delay, Occurrence::Join { machine });
    }

    /// The agent ends the processes of its last connection, and joins if there is a coordinator.
    pub(crate) fn join(&mut self, machine: Machine) {
        let Some(node) = self.machines.get(&machine).filter(|node| !node.frozen && node.name.is_none())
        else {
            return;
        };
        let slots = node.slots;
        for pid in self.pids_on(machine) {
            self.end_process(pid, Exit::Signal(9));
        }
        if self.core.is_none() {
            self.plan_in(Duration::from_millis(200), Occurrence::Join { machine });
            return;
        }
        self.last_name += 1;
        let name = self.last_name;
        if let Some(node) = self.machines.get_mut(&machine) {
            node.name = Some(name);
        }
        self.agent_reports(machine, Event::NodeJoined { node: NodeId(name), slots });
        self.plan_in(BEAT, Occurrence::NodeBeat { machine, name });
    }

    pub(crate) fn node_beats(&mut self, machine: Machine, name: u64) {
        let alive = self.machines.get(&machine).is_some_and(|node| !node.frozen && node.name == Some(name));
        if alive {
            if self.machines.get(&machine).is_some_and(|node| node.quiet_until <= self.now) {
                self.agent_reports(machine, Event::NodeHeartbeat { node: NodeId(name) });
            }
            self.plan_in(BEAT, Occurrence::NodeBeat { machine, name });
        }
    }

    fn agent_reports(&mut self, machine: Machine, event: Event) {
        let delay = self.delay();
        let Some(node) = self.machines.get_mut(&machine).filter(|node| node.name.is_some()) else { return };
        let at = node.from.arrival(self.now, delay);
        self.queue.plan(at, Occurrence::Event { term: self.term, event });
    }

    fn agent_reports_of(&mut self, machine: Machine, run: RunId, event: RunEvent) {
        self.agent_reports(machine, Event::OfRun { run, event });
    }

    pub(crate) fn agent_receives(&mut self, machine: Machine, name: u64, command: AgentCommand) {
        let here = self.machines.get(&machine).is_some_and(|node| !node.frozen && node.name == Some(name));
        if !here {
            return;
        }
        match command {
            AgentCommand::Prepare { run } => {
                let node = NodeId(name);
                let percent = self.scenario.odds.setup;
                let event = if self.goes_wrong(percent) {
                    self.tally.count("setup failed");
                    self.record_incident(&run, |incidents| incidents.setups += 1);
                    RunEvent::PrepareFailed { node, reason: "exit code 1".into(), tail: Vec::new() }
                } else {
                    RunEvent::Prepared { node }
                };
                self.agent_reports_of(machine, run, event);
            }
            AgentCommand::Start { run, worker } => self.start(machine, name, run, worker),
            AgentCommand::Kill { run, worker } => {
                if let Some(pid) = self.pid_of(&run, worker) {
                    self.end_process(pid, Exit::Signal(9));
                }
            }
        }
    }

    fn start(&mut self, machine: Machine, name: u64, run: RunId, worker: WorkerId) {
        slots::has_a_free_slot(self, machine);
        let percent = self.scenario.odds.start;
        if self.goes_wrong(percent) {
            self.tally.count("unstarted");
            self.record_incident(&run, |incidents| incidents.exits += 1);
            let exit = Exit::Unstarted("no such program".into());
            self.agent_reports_of(machine, run, RunEvent::WorkerExited { worker, exit, tail: Vec::new() });
            return;
        }
        let pid = self.begin_process(run.clone(), worker, machine, name);
        self.agent_reports_of(machine, run, RunEvent::WorkerStarted { worker, pid });
    }

    /// A process is gone: its agent reports it, the coordinator sees its stream break, its peers see their connections break.
    pub(crate) fn end_process(&mut self, pid: u32, exit: Exit) {
        let Some((machine, name)) = self.processes.get(&pid).map(|process| (process.machine, process.node))
        else {
            return;
        };
        self.break_stream(pid);
        self.break_mesh_of(pid);
        let Some(process) = self.processes.remove(&pid) else { return };
        if exit != Exit::Code(0) {
            self.record_incident(&process.run, |incidents| incidents.exits += 1);
        }
        let known = self.machines.get(&machine).is_some_and(|node| !node.frozen && node.name == Some(name));
        if known && process.term == self.term {
            let event =
                RunEvent::WorkerExited { worker: process.worker, exit, tail: vec!["its last line".into()] };
            self.agent_reports_of(machine, process.run, event);
        }
    }

    /// The machine is switched off.
    pub(crate) fn remove_machine(&mut self, machine: Machine) {
        self.break_agent_stream(machine);
        for pid in self.pids_on(machine) {
            self.end_process(pid, Exit::Signal(9));
        }
        self.machines.remove(&machine);
    }

    /// The stream to the agent breaks: when the agent sees that, it ends its processes and joins under another name.
    pub(crate) fn agent_starts_over(&mut self, machine: Machine) {
        self.break_agent_stream(machine);
        let delay = self.between(Duration::from_millis(1)..Duration::from_secs(4));
        self.plan_in(delay, Occurrence::Join { machine });
    }

    fn break_agent_stream(&mut self, machine: Machine) {
        let name = self.machines.get(&machine).and_then(|node| node.name);
        if let Some(name) = name {
            self.agent_reports(
                machine,
                Event::NodeLost { node: NodeId(name), reason: "its stream broke".into() },
            );
        }
        if let Some(node) = self.machines.get_mut(&machine) {
            node.name = None;
        }
    }

    pub(crate) fn machine_named(&self, name: u64) -> Option<Machine> {
        self.machines.iter().find(|(_, node)| node.name == Some(name)).map(|(&machine, _)| machine)
    }

    pub(crate) fn pids_on(&self, machine: Machine) -> Vec<u32> {
        let on = |process: &crate::worker::Process| process.machine == machine;
        self.processes.iter().filter(|(_, process)| on(process)).map(|(&pid, _)| pid).collect()
    }
}
