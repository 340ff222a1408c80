//! The cost of a step to a worker, without the gradient, by the number of workers:
//! `cargo bench -p whimbrel-collective --bench schedule`.
//!
//! A generation's schedule is computed once. Each step checks that it still fits, and combines the notes of all members
//! into a loss and a decision. Both are linear in the number of workers, and take less than 0.2 ms with 1,000 of them;
//! no socket is opened here. Each figure is the best of several rounds. Computed anew in each step, with a search for
//! each node of the tree, the schedule took 3 ms a step with 1,000 workers.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot set itself up has nothing to say")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use whimbrel_collective::{Reduction, Schedule};
use whimbrel_member::{Action, Event, Request, Requests, StepNote, Worker};
use whimbrel_plan::{Generation, Member, Origin, WorkerId, equal_shares};

const ROUNDS: u32 = 50;
const ELEMENTS: usize = 100_000_000;
/// The limit for a step with 1,000 workers.
const LIMIT: Duration = Duration::from_micros(200);

fn main() {
    println!("workers  shards   schedule, once   a step's check   a step's notes   a step");
    for workers in [10, 100, 1000] {
        // Shares that the tree does not divide evenly, so that most workers have several partial sums.
        let generation = generation(workers, workers as u32 * 3 + 1);
        let schedule = |step| Schedule::new(&generation, 1, step, Reduction::Exact, ELEMENTS);
        let once = best(|| (), |()| drop(black_box(schedule(0))));
        let known = schedule(0);
        let check =
            best(|| (), |()| assert!(black_box(&known).fits(&generation, 7, Reduction::Exact, ELEMENTS)));
        let notes = notes(&generation);
        let step = check + notes;
        println!(
            "{workers:7}  {:6}  {:>15}  {:>15}  {:>15}  {:>7}",
            generation.shards,
            micros(once),
            micros(check),
            micros(notes),
            micros(step)
        );
        assert!(step < LIMIT, "a step with {workers} workers takes {step:?}, over the {LIMIT:?} allowed");
    }
}

/// The time to combine the notes of all members, and to apply what they agree on.
fn notes(generation: &Generation) -> Duration {
    let schedule =
        whimbrel_member::Schedule { steps: u64::MAX, evaluate_every: None, checkpoint_every: None };
    let (mut worker, mut requests) = (Worker::new(WorkerId(1), schedule), Requests::default());
    requests.take(Request::Generation(generation.clone()));
    assert!(matches!(worker.next(&requests).unwrap(), Action::Join { .. }));
    worker.handle(Event::Joined);
    let note = |shards: std::ops::Range<u32>| {
        StepNote { losses: vec![0.5; shards.len()], ..StepNote::default() }.encode()
    };
    let notes: Vec<Vec<u8>> = generation.assignments(0).map(note).collect();
    best(
        || notes.clone(),
        |notes| {
            assert!(matches!(worker.next(&requests).unwrap(), Action::Step { .. }));
            let (computed_in, reduced_in) = (Duration::ZERO, Duration::ZERO);
            worker.handle(Event::Reduced { notes, skipped: None, computed_in, reduced_in });
            drop(black_box(worker.take_reports()));
        },
    )
}

fn generation(workers: usize, shards: u32) -> Generation {
    let member = |(rank, share): (usize, u32)| Member {
        worker: WorkerId(rank as u64 + 1),
        address: ([127, 0, 0, 1], 1).into(),
        share,
        holds: None,
    };
    let members = equal_shares(shards, workers).into_iter().enumerate().map(member).collect();
    let (run, origin, key) = ("bench".parse().unwrap(), Origin::Initial, [7; 32]);
    Generation { run, epoch: 1, number: 1, shards, origin, members, key }
}

/// The best time of `work`, without that of `prepare`.
fn best<T>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T)) -> Duration {
    let round = |_| {
        let prepared = prepare();
        let began = Instant::now();
        work(prepared);
        began.elapsed()
    };
    (0..ROUNDS).map(round).min().unwrap()
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}
