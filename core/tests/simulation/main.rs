//! The decision core against a world that fails.
//!
//! A seed makes a [`scenario`]: runs, nodes, the speed of everything and the kinds of fault there are. The [`world`] then
//! plays it on a clock of its own: the real [`whimbrel_core::Core`] with a simulated driver and run log
//! ([`coordinator`]), agents on machines ([`nodes`]), worker processes that follow the protocol ([`worker`]), their data
//! plane, which breaks in the middle of a step ([`mesh`]), and [`faults`]. After a while it heals; from then on every run
//! must come to its end. Meanwhile each promise is watched by a file of [`invariants`].
//!
//! A failure prints its seed; `WHIMBREL_SIM_SEED=<seed>` plays that seed alone, `WHIMBREL_SIM_SEEDS=<n>` plays more of
//! them than usual.

mod agenda;
mod coordinator;
mod faults;
mod invariants;
mod mesh;
mod nodes;
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

/// What must come to pass in some seed, or the promises are watched where nothing endangers them.
const SEEN: [&str; 19] = [
    "applied in a broken step",
    "checkpoint postponed",
    "commit failed",
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

/// Plays a seed and says what happened how often, or which promise was broken, and what was traced.
fn play(seed: u64, traced: bool) -> (Result<Tally, String>, Trace) {
    let mut world = World::new(seed, traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play()));
    let violation = match outcome {
        Ok(()) => world.violation,
        Err(_) => Some("it panicked; the message is above".to_owned()),
    };
    (violation.map_or(Ok(world.tally), Err), world.trace)
}

/// Plays a seed; if a promise is broken, plays it once more to say how it came to that.
fn check(seed: u64) -> Result<Tally, String> {
    play(seed, false).0.map_err(|broken| {
        let (_, trace) = play(seed, true);
        format!(
            "seed {seed}: {broken}\n\nHow it came to that:\n{}\n\nReplay it with\n  \
             WHIMBREL_SIM_SEED={seed} cargo test -p whimbrel-core --test simulation every_seed",
            trace.tail(60)
        )
    })
}

/// The number in an environment variable, if it is set.
fn number(name: &str) -> Result<Option<u64>, String> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| format!("{name} is to be a number, not {text:?}: {error}"))
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
        assert!(tally.of(what) > 0, "no seed led to {what:?}: the simulation does not go where it should");
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
