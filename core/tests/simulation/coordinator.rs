//! The simulated driver: events to the core, its commands into the world, and the run log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use whimbrel_core::{
    Command, Core, EarlierTerms, End, Event, Formation, Notice, Outcome, RunEvent, SaveCost,
};
use whimbrel_plan::{NodeId, RunId, WorkerId};

use crate::{
    agenda::{Happening, Order, ToWorker},
    invariants,
    mesh::Mesh,
    world::{Checkpoint, World},
};

const TICK: Duration = Duration::from_millis(250);

/// What the driver does for a run, one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Commit { generation: u64, step: u64 },
    Quarantine { manifest: String },
    RecordEnd { end: End },
}

/// What a coordinator has been told of a run and has commanded, in its term.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) formations: BTreeMap<u64, Formation>,
    /// Slices that the driver knows of, by generation and step.
    pub(crate) slices: BTreeMap<(u64, u64), BTreeSet<WorkerId>>,
    /// What each committed checkpoint cost.
    pub(crate) costs: Vec<SaveCost>,
    pub(crate) prepared: BTreeSet<NodeId>,
    pub(crate) started: BTreeSet<WorkerId>,
    pub(crate) ready: BTreeSet<WorkerId>,
    /// Killed, or known to have ended.
    pub(crate) given_up: BTreeSet<WorkerId>,
    /// When somebody asked for a stop.
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
        self.watches.clear();
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
                self.watches.insert(run.clone(), Watch::default());
            }
            self.event_arrives(self.term, event);
        }
        self.plan_in(TICK, Happening::Tick { term: self.term });
    }

    /// The coordinator is gone with all that it knew; it comes back after a while.
    pub(crate) fn coordinator_crashes(&mut self) {
        self.core = None;
        for run in self.records.keys().cloned().collect::<Vec<_>>() {
            self.woe(&run, |_| ());
        }
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            self.break_stream(pid);
        }
        for machine in self.machines.keys().copied().collect::<Vec<_>>() {
            self.agent_starts_over(machine);
        }
        let down = self.between(Duration::from_millis(10)..Duration::from_secs(3));
        self.plan_in(down, Happening::CoordinatorStarts);
    }

    pub(crate) fn tick(&mut self, term: u64) {
        if term == self.term && self.core.is_some() {
            self.tell_core(Event::Tick);
            self.plan_in(TICK, Happening::Tick { term });
        }
    }

    pub(crate) fn event_arrives(&mut self, term: u64, event: Event) {
        if term != self.term || self.core.is_none() {
            return;
        }
        if let Event::OfRun { run, event } = &event {
            let Some(watch) = self.watches.get_mut(run) else { return };
            match event {
                RunEvent::WorkerReady { worker, .. } => drop(watch.ready.insert(*worker)),
                RunEvent::Prepared { node } => drop(watch.prepared.insert(*node)),
                RunEvent::SliceSaved { worker, generation, step } => {
                    watch.slices.entry((*generation, *step)).or_default().insert(*worker);
                }
                RunEvent::StopRequested { .. } => watch.stop = watch.stop.or(Some(self.now)),
                RunEvent::CancelRequested => watch.cancelled = true,
                RunEvent::TermLost { .. } => watch.term_lost = true,
                _ => {}
            }
        }
        self.tell_core(event);
    }

    fn tell_core(&mut self, event: Event) {
        let Some(core) = &mut self.core else { return };
        self.trace.note(self.now, "->", &event);
        let heard = match event {
            Event::NodeHeartbeat { node } => Some(node),
            _ => None,
        };
        let commands = core.handle(self.now, event);
        let stranger = heard.filter(|&node| !core.has_node(node));
        let further =
            if commands.is_empty() { Vec::new() } else { invariants::settled::again(core, self.now) };
        self.require(further.is_empty(), || format!("the core was not settled, it went on to {further:?}"));
        for command in commands {
            self.trace.note(self.now, "<-", &command);
            invariants::check(self, &command);
            self.execute(command);
        }
        // An agent that was taken for lost is told so, and joins anew.
        let stranger = stranger.and_then(|node| self.machine_named(node.0));
        if let Some(machine) = stranger {
            self.agent_starts_over(machine);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Prepare { run, node } => self.order(node, Order::Prepare { run }),
            Command::Start { run, node, worker } => {
                self.occupied.insert((run.clone(), worker), node.0);
                if let Some(watch) = self.watches.get_mut(&run) {
                    watch.started.insert(worker);
                }
                self.order(node, Order::Start { run, worker });
            }
            Command::Kill { run, node, worker } => {
                self.give_up(&run, worker);
                self.order(node, Order::Kill { run, worker });
            }
            Command::Form { run, formation } => self.form(run, formation),
            Command::Ask { run, worker, generation, checkpoint, halt } => {
                self.tell(&run, worker, ToWorker::Ask { generation, checkpoint, halt });
            }
            Command::Interrupt { run, worker, generation } => {
                self.tell(&run, worker, ToWorker::Interrupt { generation });
            }
            Command::Leave { run, worker, .. } => self.tell(&run, worker, ToWorker::Leave),
            Command::Commit { run, generation, step } => self.job(run, Job::Commit { generation, step }),
            Command::Discard { run, generation, step } => {
                if let Some(watch) = self.watches.get_mut(&run) {
                    watch.slices.remove(&(generation, step));
                }
            }
            Command::Quarantine { run, manifest, .. } => self.job(run, Job::Quarantine { manifest }),
            Command::RecordEnd { run, end } => {
                if let Some(watch) = self.watches.get_mut(&run) {
                    watch.recording = true;
                }
                self.job(run, Job::RecordEnd { end });
            }
            Command::Announce { run, notice } => self.announced(&run, notice),
        }
    }

    fn announced(&mut self, run: &RunId, notice: Notice) {
        match notice {
            Notice::WorkerExited { worker, .. } => {
                self.give_up(run, worker);
                self.occupied.remove(&(run.clone(), worker));
                // Whoever the core does not know any more is not to be talked to.
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
                if let Some(watch) = self.watches.get_mut(run) {
                    watch.ended = Some(end);
                }
            }
            Notice::Formed { .. } => self.tally.count("generations"),
            Notice::Interval(_) => self.tally.count("interval told"),
            _ => {}
        }
    }

    fn give_up(&mut self, run: &RunId, worker: WorkerId) {
        if let Some(watch) = self.watches.get_mut(run) {
            watch.given_up.insert(worker);
        }
    }

    fn form(&mut self, run: RunId, formation: Formation) {
        let key = (self.term, run.clone(), formation.number);
        self.meshes.insert(key, Mesh::new(formation.clone()));
        for member in &formation.members {
            self.tell(&run, member.worker, ToWorker::Form { generation: formation.number });
        }
        if let Some(watch) = self.watches.get_mut(&run) {
            watch.formations.insert(formation.number, formation);
        }
    }

    fn order(&mut self, node: NodeId, order: Order) {
        let delay = self.delay();
        let Some(machine) = self.machine_named(node.0) else { return };
        let Some(found) = self.machines.get_mut(&machine) else { return };
        let at = found.to.arrival(self.now, delay);
        self.agenda.plan(at, Happening::Order { machine, name: node.0, order });
    }

    fn tell(&mut self, run: &RunId, worker: WorkerId, message: ToWorker) {
        let delay = self.delay();
        let Some(pid) = self.pid_of(run, worker) else { return };
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.connected) else { return };
        let at = process.to.arrival(self.now, delay);
        self.agenda.plan(at, Happening::ToWorker { pid, message });
    }

    fn job(&mut self, run: RunId, job: Job) {
        let delay = self.delay() * 3;
        let at = self.jobs.entry(run.clone()).or_default().arrival(self.now, delay);
        self.agenda.plan(at, Happening::Done { term: self.term, run, job });
    }

    /// Writes to the log, and tells the core. A coordinator that crashed may have written before it did.
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
                self.woe(run, |woes| woes.saves += 1);
                RunEvent::CommitFailed { step, reason: "the store refused".into() }
            }
            Job::Commit { generation, step } => {
                let manifest = format!("{step}-{term}-{generation}");
                let (damaged, quarantined) = (false, false);
                let again = record.checkpoints.iter().any(|checkpoint| checkpoint.manifest == manifest);
                if !again {
                    let committed = Checkpoint { step, manifest: manifest.clone(), damaged, quarantined };
                    record.checkpoints.push(committed);
                }
                self.tally.count("committed");
                let stall = self.between(Duration::ZERO..Duration::from_millis(300));
                let cost = SaveCost { stall, duration: stall + self.between(self.scenario.upload.clone()) };
                if let Some(watch) = self.watches.get_mut(run) {
                    watch.costs.push(cost);
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
