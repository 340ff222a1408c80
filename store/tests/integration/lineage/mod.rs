//! A simulation: one run in three stores, and all programs that may write to them, interleaved at every request.
//!
//! A seed determines a sequence of actions. Coordinators start terms and commit, replicate, collect and stop. They are
//! paused for any time and come back. Copies go from any store to any other. A run is resumed in a replica, or in two
//! stores at once. Before any request an action may be interrupted by other whole actions, and those in turn by others.
//! Writes to the log get lost in transit and land later.
//!
//! After each action:
//! - every log is consistent, and has each acknowledged entry, under the term of its writer;
//! - no store's newest checkpoint is older than before;
//! - every checkpoint that a log names can be restored, with the digest that it was committed with;
//! - [`relation`](whimbrel_store::relation) of any two logs agrees with the tree of all terms ever started.
//!
//! A failure prints its seed. `WHIMBREL_SIM_SEED=<seed>` runs that seed alone, with a trace;
//! `WHIMBREL_SIM_SEEDS=<n>` runs more seeds than usual.
mod fake_store;
mod invariants;
mod random;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use self::world::World;

const SEEDS: u64 = 60;
const ACTIONS: u64 = 40;

/// Events that must occur in some seed. Otherwise the invariants are checked where nothing endangers them.
const EXPECTED: [&str; 14] = [
    "recovered",
    "collected",
    "commit: fenced",
    "commit: lacks packs",
    "committed",
    "copied",
    "copy: diverged",
    "copy: itself",
    "copy: the run went on",
    "landed late",
    "replicated",
    "replicate: superseded",
    "replicate: the run went on",
    "resumed at a replica",
];

type Tally = BTreeMap<String, u64>;

fn play(seed: u64, traced: bool) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, traced).await;
        for number in 0..ACTIONS {
            world.action(number).await;
            invariants::check_all(&world).await;
        }
        world.heal_and_go_on().await;
        invariants::check_all(&world).await;
        world.tally()
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text:?}")))
}

#[test]
fn each_store_has_one_writer_and_the_run_one_lineage_under_any_interleaving() {
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
    for what in EXPECTED {
        assert!(tally.contains_key(what), "{what:?} never happened: {tally:#?}");
    }
}
