//! The simulated driver: events to the core, its commands into the world, and the run log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use whimbrel_core::{
    Command, Core, EarlierTerms, End, Event, Formation, Notice, Outcome, RunEvent, SaveCost,
};
use whimbrel_member::Request;
use whimbrel_plan::{Generation, NodeId, RunId, WorkerId};

use crate::{
    invariants,
    mesh::Mesh,
    queue::{AgentCommand, Occurrence},
    worker::manifest_name,
    world::{Checkpoint, World},
};

const TICK: Duration = Duration::from_millis(250);

/// A write to the log. The driver does one after the other for each run.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Commit { generation: u64, step: u64 },
    Quarantine { manifest: String },
    RecordEnd { end: End },
}

/// What the core has heard of a run, and has commanded, in the coordinator's term.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) formations: BTreeMap<u64, Formation>,
    /// Slices that are reported saved, by generation and step.
    pub(crate) slices: BTreeMap<(u64, u64), BTreeSet<WorkerId>>,
    /// The cost of each committed checkpoint.
    pub(crate) costs: Vec<SaveCost>,
    pub(crate) prepared: BTreeSet<NodeId>,
    pub(crate) started: BTreeSet<WorkerId>,
    pub(crate) ready: BTreeSet<WorkerId>,
    /// Killed, or reported to have ended.
    pub(crate) given_up: BTreeSet<WorkerId>,
    /// When a person asked for a stop.
    pub(crate) stop: Option<Duration>,
    pub(crate) cancelled: bool,
    pub(crate) term_lost: bool,
    /// The end is decided.
    pub(crate) recording: bool,
    pub(crate) ended: Option<End>,
}

impl World {
    pub(crate) fn coordinator_starts(&mut self) {
        self.term += 1;
        self.jobs.clear();
        self.observed.clear();
        self.occupied.clear();
        self.core = Some(Core::new(self.scenario.timing));
        let open: Vec<_> = self.records.iter().filter(|(_, record)| record.end.is_none()).collect();
        let opened: Vec<Event> = open
            .into_iter()
            .map(|(run, record)| Event::RunOpened {
                run: run.clone(),
                facts: record.facts.clone(),
                epoch: self.term,
                start: record.start(),
                earlier: EarlierTerms {
                    trained: self.now,
                    failures: u32::try_from(self.term).unwrap_or(u32::MAX) - 1,
                },
            })
            .collect();
        for event in opened {
            if let Event::RunOpened { run, .. } = &event {
                self.observed.insert(run.clone(), Observed::default());
            }
            self.event_arrives(self.term, event);
        }
        self.plan_in(TICK, Occurrence::Tick { term: self.term });
    }

    /// The coordinator is gone with its state; it starts again after a while.
    pub(crate) fn coordinator_crashes(&mut self) {
        self.core = None;
        for run in self.records.keys().cloned().collect::<Vec<_>>() {
            self.record_incident(&run, |_| ());
        }
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            self.break_stream(pid);
        }
        for machine in self.machines.keys().copied().collect::<Vec<_>>() {
            self.agent_starts_over(machine);
        }
        let down = self.between(Duration::from_millis(10)..Duration::from_secs(3));
        self.plan_in(down, Occurrence::CoordinatorStarts);
    }

    pub(crate) fn tick(&mut self, term: u64) {
        if term == self.term && self.core.is_some() {
            self.handle(Event::Tick);
            self.plan_in(TICK, Occurrence::Tick { term });
        }
    }

    pub(crate) fn event_arrives(&mut self, term: u64, event: Event) {
        if term != self.term || self.core.is_none() {
            return;
        }
        if let Event::OfRun { run, event } = &event {
            let Some(seen) = self.observed.get_mut(run) else { return };
            match event {
                RunEvent::WorkerReady { worker, .. } => drop(seen.ready.insert(*worker)),
                RunEvent::Prepared { node } => drop(seen.prepared.insert(*node)),
                RunEvent::SliceSaved { worker, generation, step } => {
                    seen.slices.entry((*generation, *step)).or_default().insert(*worker);
                }
                RunEvent::StopRequested { .. } => seen.stop = seen.stop.or(Some(self.now)),
                RunEvent::CancelRequested => seen.cancelled = true,
                RunEvent::TermLost { .. } => seen.term_lost = true,
                _ => {}
            }
        }
        self.handle(event);
    }

    fn handle(&mut self, event: Event) {
        let Some(core) = &mut self.core else { return };
        self.trace.note(self.now, "->", &event);
        let heard = match event {
            Event::NodeHeartbeat { node } => Some(node),
            _ => None,
        };
        let commands = core.handle(self.now, event);
        let unknown = heard.filter(|&node| !core.has_node(node));
        let further = if commands.is_empty() {
            Vec::new()
        } else {
            invariants::idempotent::commands_without_an_event(core, self.now)
        };
        self.require(further.is_empty(), || {
            format!("the core is not idempotent: without another event it commands {further:?}")
        });
        for command in commands {
            self.trace.note(self.now, "<-", &command);
            invariants::check(self, &command);
            self.execute(command);
        }
        // An agent whose node was declared lost learns it, and joins again.
        let unknown = unknown.and_then(|node| self.machine_named(node.0));
        if let Some(machine) = unknown {
            self.agent_starts_over(machine);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Prepare { run, node } => self.command_agent(node, AgentCommand::Prepare { run }),
            Command::Start { run, node, worker } => {
                self.occupied.insert((run.clone(), worker), node.0);
                if let Some(seen) = self.observed.get_mut(&run) {
                    seen.started.insert(worker);
                }
                self.command_agent(node, AgentCommand::Start { run, worker });
            }
            Command::Kill { run, node, worker } => {
                self.mark_given_up(&run, worker);
                self.command_agent(node, AgentCommand::Kill { run, worker });
            }
            Command::Form { run, formation } => self.form(run, formation),
            Command::Ask { run, worker, generation, checkpoint, halt } => {
                self.send(&run, worker, Request::Ask { generation, checkpoint, halt });
            }
            Command::Interrupt { run, worker, generation } => {
                self.send(&run, worker, Request::Interrupt { generation });
            }
            Command::Leave { run, worker, reason } => self.send(&run, worker, Request::Leave { reason }),
            Command::Commit { run, generation, step } => self.job(run, Job::Commit { generation, step }),
            Command::Discard { run, generation, step } => {
                if let Some(seen) = self.observed.get_mut(&run) {
                    seen.slices.remove(&(generation, step));
                }
            }
            Command::Quarantine { run, manifest, .. } => self.job(run, Job::Quarantine { manifest }),
            Command::RecordEnd { run, end } => {
                if let Some(seen) = self.observed.get_mut(&run) {
                    seen.recording = true;
                }
                self.job(run, Job::RecordEnd { end });
            }
            Command::Announce { run, notice } => self.announced(&run, notice),
        }
    }

    fn announced(&mut self, run: &RunId, notice: Notice) {
        match notice {
            Notice::WorkerExited { worker, .. } => {
                self.mark_given_up(run, worker);
                self.occupied.remove(&(run.clone(), worker));
                // The driver closes the connection of a worker that the core does not know any more.
                if let Some(pid) = self.pid_of(run, worker) {
                    self.break_stream(pid);
                }
            }
            Notice::Ended(end) => {
                self.tally.count(format!("outcome: {:?}", end.outcome));
                if end.outcome == Outcome::Failed {
                    let what = end.reason.split(' ').next().unwrap_or_default();
                    self.tally.count(format!("failed because of: {what}"));
                }
                if let Some(seen) = self.observed.get_mut(run) {
                    seen.ended = Some(end);
                }
            }
            Notice::Formed { .. } => self.tally.count("generations"),
            Notice::Interval(_) => self.tally.count("interval announced"),
            _ => {}
        }
    }

    fn mark_given_up(&mut self, run: &RunId, worker: WorkerId) {
        if let Some(seen) = self.observed.get_mut(run) {
            seen.given_up.insert(worker);
        }
    }

    fn form(&mut self, run: RunId, formation: Formation) {
        let shards = self.records.get(&run).map_or(0, |record| record.facts.shards);
        let Formation { number, origin, members } = formation.clone();
        let key = (self.term, run.clone(), number);
        let generation =
            Generation { run: run.clone(), epoch: self.term, number, shards, origin, members, key: [0; 32] };
        self.meshes.insert(key, Mesh::new(generation.clone()));
        for member in &formation.members {
            self.send(&run, member.worker, Request::Generation(generation.clone()));
        }
        if let Some(seen) = self.observed.get_mut(&run) {
            seen.formations.insert(number, formation);
        }
    }

    fn command_agent(&mut self, node: NodeId, command: AgentCommand) {
        let delay = self.delay();
        let Some(machine) = self.machine_named(node.0) else { return };
        let Some(found) = self.machines.get_mut(&machine) else { return };
        let at = found.to.arrival(self.now, delay);
        self.queue.plan(at, Occurrence::ToAgent { machine, name: node.0, command });
    }

    fn send(&mut self, run: &RunId, worker: WorkerId, request: Request) {
        let delay = self.delay();
        let Some(pid) = self.pid_of(run, worker) else { return };
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.connected) else { return };
        let at = process.to.arrival(self.now, delay);
        self.queue.plan(at, Occurrence::ToWorker { pid, request });
    }

    fn job(&mut self, run: RunId, job: Job) {
        let delay = self.delay() * 3;
        let at = self.jobs.entry(run.clone()).or_default().arrival(self.now, delay);
        self.queue.plan(at, Occurrence::Done { term: self.term, run, job });
    }

    /// Writes to the log and reports it to the core. A coordinator that crashed may have written before it crashed.
    pub(crate) fn job_done(&mut self, term: u64, run: &RunId, job: Job) {
        let current = term == self.term && self.core.is_some();
        if !current && (term != self.term || self.rng.bool()) {
            return;
        }
        let percent = self.scenario.odds.commit;
        let fails = matches!(job, Job::Commit { .. }) && self.goes_wrong(percent);
        let Some(record) = self.records.get_mut(run).filter(|record| record.end.is_none()) else { return };
        let event = match job {
            Job::Commit { step, .. } if fails => {
                self.tally.count("commit failed");
                self.record_incident(run, |incidents| incidents.saves += 1);
                RunEvent::CommitFailed { step, reason: "the store refused".into() }
            }
            Job::Commit { generation, step } => {
                let manifest = manifest_name(step, term, generation);
                let (damaged, quarantined) = (false, false);
                let again = record.checkpoints.iter().any(|checkpoint| checkpoint.manifest == manifest);
                if !again {
                    let committed = Checkpoint { step, manifest: manifest.clone(), damaged, quarantined };
                    record.checkpoints.push(committed);
                }
                self.tally.count("committed");
                let stall = self.between(Duration::ZERO..Duration::from_millis(300));
                let cost = SaveCost { stall, duration: stall + self.between(self.scenario.upload.clone()) };
                if let Some(seen) = self.observed.get_mut(run) {
                    seen.costs.push(cost);
                }
                RunEvent::Committed { step, manifest, cost }
            }
            Job::Quarantine { manifest } => {
                for checkpoint in &mut record.checkpoints {
                    checkpoint.quarantined |= checkpoint.manifest == manifest;
                }
                let start = record.start();
                self.tally.count("quarantined");
                RunEvent::Quarantined { start }
            }
            Job::RecordEnd { end } => {
                record.end = Some(end);
                RunEvent::EndRecorded
            }
        };
        self.event_arrives(term, Event::OfRun { run: run.clone(), event });
    }
}
