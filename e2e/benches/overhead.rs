//! Overhead: a step under Whimbrel, with one worker, compared with the same step in a loop without Whimbrel.
//!
//! `cargo bench -p whimbrel-e2e --bench overhead [-- STEPS]`. The goal is under 1%.
//!
//! Both programs are alive at once and alternate step by step, each waiting while the other computes, so that a change in
//! the machine's speed affects both alike. In every second pair the other one goes first. For STEPS (400) pairs it prints
//! the median of the paired differences, with the 95% interval of that median. The time of the processor, in all threads of
//! the process, is less sensitive to other programs than the time by the clock.
//!
//! It also prints how long a checkpoint blocks training.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints its table, and panics on errors"
)]

use std::{env, os::unix::net::UnixListener, path::Path, process::Command};

use serde_json::{Value, json};
use whimbrel_e2e::{
    paced::{Pace, StepTime},
    process::Process,
    programs,
    run::{Run, undisturbed},
    spec::Spec,
};

/// Pairs that are not counted, at the start.
const WARM_UP: usize = 10;

fn main() {
    let steps = env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(400);
    time(steps);
    checkpoint_stall();
}

/// The run of both programs, with further settings in TOML.
fn spec(steps: u64, program: &Path, settings: &str) -> Spec {
    Spec {
        command: vec![program.display().to_string()],
        settings: format!("layers = 4\n{settings}"),
        // No checkpoint but the last.
        checkpoint_every: steps,
        ..Spec::small(steps)
    }
}

fn time(pairs: usize) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pace");
    let listener = UnixListener::bind(&socket).unwrap();
    let program = programs::folder().join("paced-trainer");
    // The last step of a run reports no time.
    let steps = (WARM_UP + pairs + 1) as u64;

    let mut bare = Command::new(&program);
    let context = json!({
        "seed": 7, "global_batch": 32, "shards": 16, "steps": steps, "settings": {"layers": 4, "pace": &socket},
    });
    bare.args(["bare", &context.to_string()]);
    let _bare = Process::start(bare);
    let mut bare = Pace::accept(&listener).unwrap();
    let spec = spec(steps, &program, &format!("pace = {socket:?}"));
    let run = Run::start(&spec, folder.path(), &["--workers", "1"]);
    let mut whimbrel = Pace::accept(&listener).unwrap();

    let mut measured = Vec::new();
    for pair in 0..WARM_UP + pairs {
        let times = if pair % 2 == 0 {
            let bare = bare.step().unwrap();
            (bare, whimbrel.step().unwrap())
        } else {
            let whimbrel = whimbrel.step().unwrap();
            (bare.step().unwrap(), whimbrel)
        };
        measured.push(times);
    }
    whimbrel.allow().unwrap();
    run.finish().state();

    println!("{pairs} pairs of steps        bare     Whimbrel   difference   95% interval");
    for name in ["clock", "processor"] {
        let seconds = |time: &StepTime| {
            let duration = if name == "clock" { time.wall } else { time.processor };
            duration.as_secs_f64()
        };
        let pairs: Vec<(f64, f64)> =
            measured[WARM_UP..].iter().map(|(bare, whimbrel)| (seconds(bare), seconds(whimbrel))).collect();
        let bare = middle(pairs.iter().map(|(bare, _)| *bare).collect()).median;
        let whimbrel = middle(pairs.iter().map(|(_, whimbrel)| *whimbrel).collect()).median;
        let difference =
            middle(pairs.iter().map(|(bare, whimbrel)| (whimbrel - bare) / bare * 100.0).collect());
        println!(
            "{name:<18}{:>10.2} ms{:>10.2} ms{:>+11.2}%   {:+.2}% to {:+.2}%",
            bare * 1e3,
            whimbrel * 1e3,
            difference.median,
            difference.low,
            difference.high
        );
    }
}

/// A median, and the interval that contains the true one with a probability of 95%.
struct Middle {
    median: f64,
    low: f64,
    high: f64,
}

fn middle(mut values: Vec<f64>) -> Middle {
    values.sort_by(f64::total_cmp);
    let (count, half) = (values.len(), values.len() as f64 / 2.0);
    // Ranks of the order statistics, by the normal approximation of the binomial distribution.
    let reach = 0.98 * (count as f64).sqrt();
    let at = |rank: f64| values[(rank.max(0.0) as usize).min(count - 1)];
    Middle { median: at(half), low: at(half - reach), high: at(half + reach) }
}

fn checkpoint_stall() {
    let spec = Spec { checkpoint_every: 20, ..spec(100, &programs::char_lm(), "") };
    let outcome = undisturbed(&spec, &["--workers", "1"]);
    outcome.state();
    let median = |kind: &str, field: &str| {
        let events = outcome.events.iter().filter(|event: &&Value| event["event"] == kind);
        middle(events.map(|event| event[field].as_f64().unwrap()).collect()).median
    };
    let (stall, step) = (median("checkpoint", "blocked_seconds"), median("step", "seconds"));
    println!("a checkpoint blocks training for {:.2}% of a step (median)", stall / step * 100.0);
}
