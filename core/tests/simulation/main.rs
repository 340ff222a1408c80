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

fn check(seed: u64) -> Tally {
    let (outcome, _) = play(seed, false);
    outcome.unwrap_or_else(|broken| {
        let (_, trace) = play(seed, true);
        panic!(
            "seed {seed}: {broken}\n\nHow it came to that:\n{}\n\nReplay it with\n  \
             WHIMBREL_SIM_SEED={seed} cargo test -p whimbrel-core --test simulation every_seed",
            trace.tail(60)
        )
    })
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("WHIMBREL_SIM_SEED") {
        print!("{}", check(seed));
        return;
    }
    let mut tally = Tally::default();
    for seed in 0..number("WHIMBREL_SIM_SEEDS").unwrap_or(SEEDS) {
        tally.add(check(seed));
    }
    println!("{tally}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..30 {
        let (first, second) = (play(seed, true).1.text(), play(seed, true).1.text());
        assert!(!first.is_empty());
        assert_eq!(first, second, "seed {seed}");
    }
}
