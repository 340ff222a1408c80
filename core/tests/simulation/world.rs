//! The simulated world: everything around the core.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fastrand::Rng;
use whimbrel_core::{Core, End, RunFacts, Start};
use whimbrel_plan::{RunId, WorkerId};

use crate::{
    coordinator::Observed,
    invariants::{liveness, same_bits},
    mesh::Mesh,
    nodes::Node,
    queue::{Channel, Machine, Occurrence, Queue},
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
    pub(crate) queue: Queue,
    /// How often a coordinator has started; also its epoch.
    pub(crate) term: u64,
    /// The coordinator's state; `None` while it is down.
    pub(crate) core: Option<Core>,
    /// The driver's writes to each run's log, one after the other.
    pub(crate) jobs: BTreeMap<RunId, Channel>,
    /// What the core has heard and commanded in this term.
    pub(crate) observed: BTreeMap<RunId, Observed>,
    /// The runs in the store.
    pub(crate) records: BTreeMap<RunId, Record>,
    pub(crate) machines: BTreeMap<Machine, Node>,
    pub(crate) last_name: u64,
    pub(crate) processes: BTreeMap<Pid, Process>,
    pub(crate) last_pid: Pid,
    pub(crate) meshes: BTreeMap<MeshKey, Mesh>,
    /// Slots in use as far as the core knows: workers that were started and are not reported to have ended, by node name.
    pub(crate) occupied: BTreeMap<(RunId, WorkerId), u64>,
    pub(crate) healed: bool,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    /// The first invariant that was violated.
    pub(crate) violation: Option<String>,
}

/// A run's directory.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) facts: RunFacts,
    /// `bits[t]` are the bits of the state after `t` steps, each applied once and in order.
    pub(crate) bits: Vec<u64>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Manifests of checkpoints whose state says that the run ends with it.
    pub(crate) last: BTreeSet<String>,
    /// A program wanted the run to end early.
    pub(crate) end_wanted: bool,
    pub(crate) end: Option<End>,
    /// What happened to it that may explain a failure or an incomplete stop.
    pub(crate) incidents: Incidents,
}

/// A committed checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) step: u64,
    pub(crate) manifest: String,
    pub(crate) damaged: bool,
    pub(crate) quarantined: bool,
}

/// What went wrong for a run, as far as it may end the run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Incidents {
    pub(crate) exits: u32,
    pub(crate) setups: u32,
    pub(crate) saves: u32,
    pub(crate) restores: u32,
    /// Generations that broke though no member was lost.
    pub(crate) breaks: u32,
    /// Failures of trainers that would fail on any worker.
    pub(crate) fatal: u32,
    /// When anything was last disturbed.
    pub(crate) disturbed: Duration,
}

impl Record {
    pub(crate) fn new(facts: RunFacts) -> Self {
        let bits = same_bits::all(facts.steps);
        let (checkpoints, last, incidents) = Default::default();
        Self { facts, bits, checkpoints, last, end_wanted: false, end: None, incidents }
    }

    /// Where the run goes on from.
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
            queue: Queue::default(),
            term: 0,
            core: None,
            jobs: BTreeMap::new(),
            observed: BTreeMap::new(),
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
            world.add_machine(slots);
        }
        world.queue.plan(Duration::ZERO, Occurrence::CoordinatorStarts);
        world.queue.plan(world.scenario.heal_at, Occurrence::Heal);
        world.plan_fault();
        world
    }

    /// Plays until every run and every process has ended, an invariant is violated, or the time is over.
    pub(crate) fn play(&mut self) {
        while self.violation.is_none()
            && !liveness::is_over(self)
            && let Some((at, occurrence)) = self.queue.next()
        {
            self.now = at;
            liveness::in_time(self);
            self.happen(occurrence);
        }
        if self.violation.is_none() {
            liveness::every_end_is_explained(self);
        }
    }

    fn happen(&mut self, occurrence: Occurrence) {
        // Events are noted where the core takes them.
        if !matches!(occurrence, Occurrence::Tick { .. } | Occurrence::Event { .. }) {
            self.trace.note(self.now, "  ", &occurrence);
        }
        match occurrence {
            Occurrence::Tick { term } => self.tick(term),
            Occurrence::Event { term, event } => self.event_arrives(term, event),
            Occurrence::Done { term, run, job } => self.job_done(term, &run, job),
            Occurrence::CoordinatorStarts => self.coordinator_starts(),
            Occurrence::ToAgent { machine, name, command } => self.agent_receives(machine, name, command),
            Occurrence::Join { machine } => self.join(machine),
            Occurrence::NodeBeat { machine, name } => self.node_beats(machine, name),
            Occurrence::ToWorker { pid, request } => self.worker_receives(pid, request),
            Occurrence::Built { pid } => self.worker_built(pid),
            Occurrence::WorkerBeat { pid } => self.worker_beats(pid),
            Occurrence::StreamSeenBroken { pid } => self.stream_seen_broken(pid),
            Occurrence::Exits { pid, code } => self.exits(pid, code),
            Occurrence::Uploaded { pid, generation, step } => self.uploaded(pid, generation, step),
            Occurrence::Computed { pid, mesh, progress } => self.computed(pid, &mesh, progress),
            Occurrence::Met { mesh, progress } => self.met(&mesh, progress),
            Occurrence::Transferred { pid, mesh } => self.transferred(pid, &mesh),
            Occurrence::PeersTimeOut { mesh, progress } => self.peers_time_out(&mesh, progress),
            Occurrence::BreakNoticed { pid, generation } => self.break_noticed(pid, generation),
            Occurrence::Fault => self.fault_strikes(),
            Occurrence::Heal => self.heal(),
        }
    }

    /// Notes a violation unless `kept`.
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

    /// Whether something that goes wrong in `percent` of the cases goes wrong now.
    pub(crate) fn goes_wrong(&mut self, percent: u32) -> bool {
        !self.healed && self.rng.u32(0..100) < percent
    }

    pub(crate) fn plan_in(&mut self, delay: Duration, occurrence: Occurrence) {
        self.queue.plan(self.now + delay, occurrence);
    }

    pub(crate) fn record_incident(&mut self, run: &RunId, note: impl FnOnce(&mut Incidents)) {
        if let Some(record) = self.records.get_mut(run) {
            record.incidents.disturbed = self.now;
            note(&mut record.incidents);
        }
    }
}
