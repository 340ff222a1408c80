//! The decision core in a simulated world that fails.
//!
//! A seed makes a [`scenario`]: runs, nodes, the speed of everything and the kinds of fault there are. The [`world`] then
//! plays it on its own clock: the real [`whimbrel_core::Core`] with a simulated driver and run log
//! ([`coordinator`]), agents on machines ([`nodes`]), worker processes that make the real decisions of `whimbrel-member`
//! ([`worker`]), their data plane, which breaks in the middle of a step ([`mesh`]), and [`faults`]. After a while the world heals; from then on every
//! run must reach its end. Each file of [`invariants`] checks one promise all the time.
//!
//! A failure prints its seed. `WHIMBREL_SIM_SEED=<seed>` plays that seed alone; `WHIMBREL_SIM_SEEDS=<n>` plays the first
//! n seeds.

mod coordinator;
mod faults;
mod invariants;
mod mesh;
mod nodes;
mod queue;
mod scenario;
mod trace;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    trace::{Tally, Trace},
    world::World,
};

const SEEDS: u64 = 3000;

/// What must happen in some seed; otherwise the invariants are checked where nothing endangers them.
const SEEN: [&str; 21] = [
    "applied in a broken step",
    "checkpoint postponed",
    "commit failed",
    "ended by its program",
    "fatal failure of a trainer",
    "fault: CoordinatorCrashes",
    "fault: PeerLinkBreaks",
    "fault: Stall",
    "halted as agreed",
    "halted, broken",
    "interval: by its limits",
    "interval: cheapest",
    "interval: not below a save",
    "outcome: Cancelled",
    "outcome: Failed",
    "outcome: Finished",
    "outcome: Released",
    "outcome: Stopped",
    "quarantined",
    "restore: out of reach",
    "upload failed",
];

/// Plays a seed. Returns how often each thing happened or which invariant was violated, and the trace.
fn play(seed: u64, traced: bool) -> (Result<Tally, String>, Trace) {
    let mut world = World::new(seed, traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play()));
    let violation = match outcome {
        Ok(()) => world.violation,
        Err(_) => Some("it panicked; the message is above".to_owned()),
    };
    (violation.map_or(Ok(world.tally), Err), world.trace)
}

/// Plays a seed. If an invariant is violated, plays it again with a trace, for the message.
fn check(seed: u64) -> Result<Tally, String> {
    play(seed, false).0.map_err(|broken| {
        let (_, trace) = play(seed, true);
        format!(
            "seed {seed}: {broken}\n\nThe last events and commands:\n{}\n\nReplay it with\n  \
             WHIMBREL_SIM_SEED={seed} cargo test -p whimbrel-core --test simulation every_seed",
            trace.tail(60)
        )
    })
}

/// The number in an environment variable, if it is set.
fn number(name: &str) -> Result<Option<u64>, String> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| format!("{name} must be a number, not {text:?}: {error}"))
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("WHIMBREL_SIM_SEED").unwrap() {
        let tally = check(seed).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{tally}");
        return;
    }
    let mut tally = Tally::default();
    for seed in 0..number("WHIMBREL_SIM_SEEDS").unwrap().unwrap_or(SEEDS) {
        tally.add(check(seed).unwrap_or_else(|broken| panic!("{broken}")));
    }
    println!("{tally}");
    for what in SEEN {
        assert!(
            tally.of(what) > 0,
            "no seed led to {what:?}: the simulation misses a case that it is meant for"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..30 {
        let (first, second) = (play(seed, true).1.text(), play(seed, true).1.text());
        assert!(!first.is_empty());
        assert_eq!(first, second, "seed {seed}");
    }
}
