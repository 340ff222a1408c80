//! What a seed stands for: the runs, the nodes, the speed of everything, and the faults.

use std::{ops::Range, time::Duration};

use fastrand::Rng;
use whimbrel_core::{CheckpointEvery, RunFacts, Timing};

/// A world to be simulated.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) timing: Timing,
    pub(crate) runs: Vec<RunFacts>,
    /// Slots of each node that exists from the start.
    pub(crate) nodes: Vec<u32>,
    /// The kinds of fault of this seed; one that is listed twice is drawn twice as often.
    pub(crate) faults: Vec<Fault>,
    /// The mean time between faults.
    pub(crate) fault_every: Duration,
    /// From here on nothing goes wrong.
    pub(crate) heal_at: Duration,
    /// How often operations fail while there are faults.
    pub(crate) odds: Odds,
    /// Most messages take up to this long, some ten times as long.
    pub(crate) delay: Duration,
    /// How long a step takes.
    pub(crate) step: Range<Duration>,
    /// How long an upload takes.
    pub(crate) upload: Range<Duration>,
    /// How long an evaluation takes.
    pub(crate) evaluation: Range<Duration>,
    /// Steps between evaluations, besides the one after the last step.
    pub(crate) evaluate_every: Option<u64>,
}

/// Percentages of failure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Odds {
    pub(crate) upload: u32,
    pub(crate) commit: u32,
    pub(crate) restore: u32,
    pub(crate) setup: u32,
    pub(crate) start: u32,
}

/// Something that goes wrong, or that a person requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A worker gets SIGKILL.
    Kill,
    /// A worker does nothing any more and sends nothing.
    Hang,
    /// A worker does nothing any more but keeps sending heartbeats.
    Stall,
    /// A trainer returns an error.
    TrainerFails,
    /// The stream between a worker and the coordinator breaks.
    WorkerLinkBreaks,
    /// A worker works, but its heartbeats do not arrive for a while.
    WorkerGoesQuiet,
    /// A connection between two members breaks; both live.
    PeerLinkBreaks,
    /// A node is switched off.
    NodeLost,
    /// A node freezes with all that is on it.
    NodeFreezes,
    /// The stream between an agent and the coordinator breaks.
    NodeLinkBreaks,
    /// A node works, but its heartbeats do not arrive for a while.
    NodeGoesQuiet,
    /// A node joins.
    NodeJoins,
    /// The newest checkpoint is damaged in the store.
    CheckpointDamaged,
    /// The coordinator crashes and starts again.
    CoordinatorCrashes,
    /// Another coordinator starts a term of a run.
    TermLost,
    /// A program wants its run to end before the last step.
    EndWanted,
    /// A person stops a run.
    Stop,
    /// A person cancels a run.
    Cancel,
}

const DISTURBANCES: [Fault; 14] = [
    Fault::Kill,
    Fault::Hang,
    Fault::Stall,
    Fault::TrainerFails,
    Fault::WorkerLinkBreaks,
    Fault::WorkerGoesQuiet,
    Fault::PeerLinkBreaks,
    Fault::NodeLost,
    Fault::NodeFreezes,
    Fault::NodeLinkBreaks,
    Fault::NodeGoesQuiet,
    Fault::NodeJoins,
    Fault::CheckpointDamaged,
    Fault::CoordinatorCrashes,
];

impl Scenario {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let runs = (0..if one_in(rng, 5) { 2 } else { 1 }).map(|_| facts(rng)).collect();
        let mut faults: Vec<Fault> = Vec::new();
        for fault in DISTURBANCES {
            if one_in(rng, 3) {
                faults.extend(vec![fault; rng.usize(1..4)]);
            }
        }
        // Requests of persons and programs are rare, so that most runs train to their end.
        for (fault, chance) in
            [(Fault::EndWanted, 8), (Fault::Stop, 5), (Fault::Cancel, 40), (Fault::TermLost, 40)]
        {
            if one_in(rng, chance) {
                faults.push(fault);
            }
        }
        let mut odds = |most: u32| if one_in(rng, 3) { rng.u32(1..=most) } else { 0 };
        let odds =
            Odds { upload: odds(40), commit: odds(40), restore: odds(40), setup: odds(50), start: odds(30) };
        Self {
            timing: Timing {
                start_timeout: Duration::from_secs(20),
                stop_timeout: Duration::from_secs(60),
                save_timeout: Duration::from_secs(5),
                gather_timeout: millis(rng, 100..3000),
                exit_timeout: millis(rng, 500..5000),
                restart_delay: millis(rng, 100..1000),
                save_retry_delay: millis(rng, 100..3000),
                first_save: millis(rng, 100..3000),
                min_interval: millis(rng, 100..1000),
                max_interval: millis(rng, 1000..10_000),
                assumed_failure_interval: millis(rng, 1000..60_000),
                ..Timing::default()
            },
            runs,
            nodes: (0..rng.usize(1..4)).map(|_| rng.u32(1..4)).collect(),
            faults,
            fault_every: millis(rng, 200..4000),
            heal_at: millis(rng, 2000..30_000),
            odds,
            delay: millis(rng, 1..60),
            step: Duration::from_millis(30)..millis(rng, 40..600),
            upload: Duration::from_millis(10)..millis(rng, 20..3000),
            evaluation: Duration::from_millis(1)..millis(rng, 2..3000),
            evaluate_every: one_in(rng, 3).then(|| rng.u64(8..40)),
        }
    }
}

fn facts(rng: &mut Rng) -> RunFacts {
    let workers_max = rng.u32(1..=5);
    RunFacts {
        steps: rng.u64(1..60),
        shards: workers_max + rng.u32(0..8),
        workers_min: rng.u32(1..=workers_max.min(3)),
        workers_max,
        max_failures: rng.u32(3..7),
        step_timeout: millis(rng, 3000..8000),
        leave_timeout: millis(rng, 500..5000),
        checkpoint: match rng.u32(0..3) {
            0 => CheckpointEvery::Steps(rng.u64(1..12)),
            1 => CheckpointEvery::Time(millis(rng, 500..5000)),
            _ => CheckpointEvery::Auto,
        },
        has_setup: rng.bool(),
    }
}

fn one_in(rng: &mut Rng, chance: u32) -> bool {
    rng.u32(0..chance) == 0
}

fn millis(rng: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}
