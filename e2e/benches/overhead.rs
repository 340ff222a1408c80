//! One worker under Whimbrel against the bare training loop in one process.
//!
//! `cargo bench -p whimbrel-e2e --bench overhead [-- STEPS]` does both in turn, three times over, and prints the median
//! step of each. The goal is under 2% more. It prints, too, how long a checkpoint holds up training.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark: it prints its table, and ends where anything goes wrong"
)]

use std::time::Instant;

use char_lm::{CharLm, bare::Bare};
use serde_json::Value;
use whimbrel_e2e::{run::undisturbed, spec::Spec};
use whimbrel_worker::Context;

const ROUNDS: usize = 3;
const WARM_UP: usize = 5;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let steps: u64 = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(100);
    let settings = "layers = 4";
    let spec = Spec { settings: settings.into(), checkpoint_every: 20, ..Spec::small(steps) };
    let (mut ratios, mut stalls) = (Vec::new(), Vec::new());
    println!("{:>6}  {:>12}  {:>12}  {:>8}", "round", "bare", "whimbrel", "ratio");
    for round in 0..ROUNDS {
        let bare = bare(steps);
        let outcome = undisturbed(&spec, &["--workers", "1"]);
        outcome.state();
        let of = |kind: &str, field: &str| -> Vec<f64> {
            let events = outcome.events.iter().filter(|event: &&Value| event["event"] == kind);
            events.map(|event| event[field].as_f64().unwrap() * 1e3).collect()
        };
        let whimbrel = median(of("step", "seconds").split_off(WARM_UP));
        stalls.extend(of("checkpoint", "blocked_seconds").into_iter().map(|stall| stall / whimbrel));
        println!("{round:>6}  {bare:>9.2} ms  {whimbrel:>9.2} ms  {:>8.4}", whimbrel / bare);
        ratios.push(whimbrel / bare);
    }
    println!("a step takes {:+.2}% (median of the rounds)", (median(ratios) - 1.0) * 100.0);
    println!("a checkpoint holds up training for {:.2}% of a step (median)", median(stalls) * 100.0);
}

/// The median step of the bare loop, in milliseconds.
fn bare(steps: u64) -> f64 {
    let context =
        Context { seed: 7, global_batch: 32, shards: 16, steps, settings: serde_json::json!({"layers": 4}) };
    let mut training = Bare::new(&context, CharLm::new(&context).unwrap());
    let mut times = Vec::new();
    for _ in 0..steps {
        let begun = Instant::now();
        training.step().unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    median(times.split_off(WARM_UP))
}
