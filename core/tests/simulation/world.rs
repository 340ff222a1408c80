//! The simulated world: everything but the decisions.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use whimbrel_core::{Core, End, RunFacts, Start};
use whimbrel_plan::{RunId, WorkerId};

use crate::{
    agenda::{Agenda, Happening, Link, Machine},
    coordinator::Watch,
    invariants::{liveness, same_bits},
    mesh::Mesh,
    nodes::Node,
    scenario::Scenario,
    trace::{Tally, Trace},
    worker::{MeshKey, Pid, Process},
};

/// The simulated world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) agenda: Agenda,
    /// How often a coordinator has started: also the epoch of all that it does.
    pub(crate) term: u64,
    /// The coordinator's mind; gone while it is down.
    pub(crate) core: Option<Core>,
    /// The driver does one thing after another for each run.
    pub(crate) jobs: BTreeMap<RunId, Link>,
    /// What this term's coordinator has been told and has commanded.
    pub(crate) watches: BTreeMap<RunId, Watch>,
    /// What is in the store.
    pub(crate) records: BTreeMap<RunId, Record>,
    pub(crate) machines: BTreeMap<Machine, Node>,
    pub(crate) last_name: u64,
    pub(crate) processes: BTreeMap<Pid, Process>,
    pub(crate) last_pid: Pid,
    pub(crate) meshes: BTreeMap<MeshKey, Mesh>,
    /// Places in use as the core knows it: who was started where, and is not known to have ended.
    pub(crate) occupied: BTreeMap<(RunId, WorkerId), u64>,
    pub(crate) healed: bool,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    /// The first promise that was broken.
    pub(crate) violation: Option<String>,
}

/// A run's directory.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) facts: RunFacts,
    /// `bits[t]` are the bits of the state after `t` steps, each applied once and in order.
    pub(crate) bits: Vec<u64>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) end: Option<End>,
    /// What happened to it that may explain that it failed or stopped short.
    pub(crate) woes: Woes,
}

/// A committed checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) step: u64,
    pub(crate) manifest: String,
    pub(crate) damaged: bool,
    pub(crate) quarantined: bool,
}

/// What went wrong for a run, as far as it may end it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Woes {
    pub(crate) exits: u32,
    pub(crate) setups: u32,
    pub(crate) saves: u32,
    pub(crate) restores: u32,
    /// The last time that anything was disturbed.
    pub(crate) disturbed: Duration,
}

impl Record {
    pub(crate) fn new(facts: RunFacts) -> Self {
        let bits = same_bits::all(facts.steps);
        Self { facts, bits, checkpoints: Vec::new(), end: None, woes: Woes::default() }
    }

    /// Where the run is to go on.
    pub(crate) fn start(&self) -> Start {
        let good = self.checkpoints.iter().filter(|checkpoint| !checkpoint.quarantined);
        good.max_by_key(|checkpoint| checkpoint.step).map_or(Start::Initial, |checkpoint| Start::Checkpoint {
            step: checkpoint.step,
            manifest: checkpoint.manifest.clone(),
        })
    }
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::new(&mut rng);
        let mut world = Self {
            rng,
            now: Duration::ZERO,
            agenda: Agenda::default(),
            term: 0,
            core: None,
            jobs: BTreeMap::new(),
            watches: BTreeMap::new(),
            records: BTreeMap::new(),
            machines: BTreeMap::new(),
            last_name: 0,
            processes: BTreeMap::new(),
            last_pid: 100,
            meshes: BTreeMap::new(),
            occupied: BTreeMap::new(),
            healed: false,
            trace: Trace::new(traced),
            tally: Tally::default(),
            violation: None,
            scenario,
        };
        for (number, facts) in world.scenario.runs.clone().into_iter().enumerate() {
            match format!("r{number}").parse() {
                Ok(run) => drop(world.records.insert(run, Record::new(facts))),
                Err(error) => world.violation = Some(format!("{error}")),
            }
        }
        for slots in world.scenario.nodes.clone() {
            world.machine_comes(slots);
        }
        world.agenda.plan(Duration::ZERO, Happening::CoordinatorStarts);
        world.agenda.plan(world.scenario.heal_at, Happening::Heal);
        world.plan_fault();
        world
    }

    /// Lets things happen until every run has ended and every process with it, a promise is broken, or it is too late.
    pub(crate) fn play(&mut self) {
        while self.violation.is_none()
            && !liveness::all_is_over(self)
            && let Some((at, happening)) = self.agenda.next()
        {
            self.now = at;
            liveness::in_time(self);
            self.happen(happening);
        }
        if self.violation.is_none() {
            liveness::every_end_is_explained(self);
        }
    }

    fn happen(&mut self, happening: Happening) {
        // What reaches the core is noted there.
        if !matches!(happening, Happening::Tick { .. } | Happening::Event { .. }) {
            self.trace.note(self.now, "  ", &happening);
        }
        match happening {
            Happening::Tick { term } => self.tick(term),
            Happening::Event { term, event } => self.event_arrives(term, event),
            Happening::Done { term, run, job } => self.job_done(term, &run, job),
            Happening::CoordinatorStarts => self.coordinator_starts(),
            Happening::Order { machine, name, order } => self.order_arrives(machine, name, order),
            Happening::Join { machine } => self.join(machine),
            Happening::NodeBeat { machine, name } => self.node_beats(machine, name),
            Happening::ToWorker { pid, message } => self.worker_receives(pid, message),
            Happening::Built { pid } => self.worker_built(pid),
            Happening::WorkerBeat { pid } => self.worker_beats(pid),
            Happening::StreamSeenBroken { pid } => self.stream_seen_broken(pid),
            Happening::Exits { pid, code } => self.exits(pid, code),
            Happening::Uploaded { pid, generation, step } => self.uploaded(pid, generation, step),
            Happening::Evaluated { pid, generation } => self.evaluated(pid, generation),
            Happening::Synced { mesh } => self.synced(&mesh),
            Happening::Reduced { mesh, progress } => self.reduced(&mesh, progress),
            Happening::PeersTimeOut { mesh, progress } => self.peers_time_out(&mesh, progress),
            Happening::BreakNoticed { pid, generation } => self.break_noticed(pid, generation),
            Happening::Fault => self.fault_strikes(),
            Happening::Heal => self.heal(),
        }
    }

    /// A promise is broken, unless `kept`.
    pub(crate) fn require(&mut self, kept: bool, promise: impl FnOnce() -> String) {
        if !kept && self.violation.is_none() {
            self.violation = Some(promise());
        }
    }

    /// How long the next message takes.
    pub(crate) fn delay(&mut self) -> Duration {
        let usual = self.scenario.delay;
        let delay = self.between(Duration::from_millis(1)..usual + Duration::from_millis(2));
        if self.rng.u32(0..30) == 0 { delay * 10 } else { delay }
    }

    pub(crate) fn between(&mut self, range: std::ops::Range<Duration>) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (from, to) = (micros(range.start), micros(range.end));
        Duration::from_micros(self.rng.u64(from..to.max(from + 1)))
    }

    /// Whether something that may go wrong in `percent` of the cases does so now.
    pub(crate) fn goes_wrong(&mut self, percent: u32) -> bool {
        !self.healed && self.rng.u32(0..100) < percent
    }

    pub(crate) fn plan_in(&mut self, delay: Duration, happening: Happening) {
        self.agenda.plan(self.now + delay, happening);
    }

    pub(crate) fn woe(&mut self, run: &RunId, note: impl FnOnce(&mut Woes)) {
        if let Some(record) = self.records.get_mut(run) {
            record.woes.disturbed = self.now;
            note(&mut record.woes);
        }
    }
}
