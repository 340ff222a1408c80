//! One run in three stores, and everybody who may write to them, interleaved at every request.
//!
//! A seed makes a sequence of deeds: coordinators start a term and commit, replicate, collect, stop, are paused for as long
//! as one likes and come back; copies go from any store to any; a run is resumed at a replica, or in two places at once. A
//! deed is interrupted before any of its requests by other deeds, whole ones, and those by others still. Writes to the
//! log get lost on their way and land when nobody expects them.
//!
//! After each deed:
//! - every log tells one story, and each entry that was acknowledged is in it, under the term of who wrote it;
//! - the newest checkpoint of no store is older than it was before;
//! - every checkpoint that a log names can be restored, with the digest that it was committed with;
//! - [`relation`](whimbrel_store::relation) says of any two logs what the tree of all terms ever taken says.
//!
//! A failure prints its seed; `WHIMBREL_SIM_SEED=<seed>` plays that seed alone, with what was done,
//! `WHIMBREL_SIM_SEEDS=<n>` plays more of them than usual.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a failure says its seed")]

mod dice;
mod place;
mod watch;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use world::World;

const SEEDS: u64 = 60;
const DEEDS: u64 = 40;

/// What must come to pass in some seed, or the promises are watched where nothing endangers them.
const SEEN: [&str; 14] = [
    "brought back",
    "collected",
    "commit: fenced",
    "commit: packs were gone",
    "committed",
    "copied",
    "copy: diverged",
    "copy: itself",
    "copy: the run went on",
    "landed late",
    "replicated",
    "replicate: relieved",
    "replicate: the run went on",
    "resumed at a replica",
];

type Tally = BTreeMap<String, u64>;

fn play(seed: u64, traced: bool) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, traced).await;
        for number in 0..DEEDS {
            world.deed(number).await;
            watch::everything(&world).await;
        }
        world.heal_and_go_on().await;
        watch::everything(&world).await;
        world.tally()
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text:?}")))
}

#[test]
fn one_writer_a_store_and_one_lineage_whatever_happens_in_between() {
    if let Some(seed) = number("WHIMBREL_SIM_SEED") {
        eprintln!("{:#?}", play(seed, true));
        return;
    }
    let mut tally = Tally::new();
    for seed in 0..number("WHIMBREL_SIM_SEEDS").unwrap_or(SEEDS) {
        match catch_unwind(AssertUnwindSafe(|| play(seed, false))) {
            Ok(seen) => seen.into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times),
            Err(_) => panic!("seed {seed} failed, see above; WHIMBREL_SIM_SEED={seed} plays it alone"),
        }
    }
    for what in SEEN {
        assert!(tally.contains_key(what), "{what:?} never happened: {tally:#?}");
    }
}
