//! Recovery: the time from the SIGKILL of one of four workers to the next step that the others apply.
//!
//! `cargo bench -p whimbrel-e2e --bench recovery [-- REPETITIONS]` prints a table: the time from the signal to the next
//! step, the median step of the same run, and the difference, which is the cost of the recovery. The goal is under 100
//! ms.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints its table, and panics on errors"
)]

use std::time::Instant;

use whimbrel_e2e::{run::Run, spec::Spec};

fn main() {
    let repetitions: u64 = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(10);
    // The example's model and batch: steps so long that a kill happens in the middle of one.
    let spec = Spec { settings: "layers = 4".into(), checkpoint_every: 1000, ..Spec::small(100_000) };
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::start(&spec, folder.path(), &["--workers", "4"]);
    println!(
        "{:>4}  {:>14}  {:>14}  {:>14}  {:>10}",
        "", "kill to step", "median step", "beyond a step", "steps lost"
    );
    let mut beyond = Vec::new();
    for repetition in 0..repetitions {
        // Wait for four members, then measure some steps.
        run.until("four members", |event| event["event"] == "generation" && event["workers"] == 4);
        let mut usual: Vec<f64> = Vec::new();
        while usual.len() < 15 {
            let event = run.until("a step", |event| event["event"] == "step");
            usual.push(event["seconds"].as_f64().unwrap() * 1e3);
        }
        usual.remove(0);
        usual.sort_by(f64::total_cmp);
        let median = usual[usual.len() / 2];
        let last = run.events.last().unwrap()["step"].as_u64().unwrap();

        let killed = Instant::now();
        run.kill_worker(repetition % 4);
        // Events of steps before the signal may still arrive.
        run.until("the next generation", |event| event["event"] == "generation");
        let before =
            run.events.iter().rev().find(|event| event["event"] == "step").unwrap()["step"].as_u64().unwrap();
        let next = run.until("the next step", |event| event["event"] == "step")["step"].as_u64().unwrap();
        let took = killed.elapsed().as_secs_f64() * 1e3;
        let lost = i128::from(before + 1) - i128::from(next);
        println!(
            "{repetition:>4}  {took:>11.1} ms  {median:>11.1} ms  {:>11.1} ms  {lost:>10}",
            took - median
        );
        assert!(next > last && lost == 0, "a step was computed again");
        beyond.push(took - median);
    }
    beyond.sort_by(f64::total_cmp);
    println!(
        "beyond one step: median {:.1} ms, worst {:.1} ms",
        beyond[beyond.len() / 2],
        beyond[beyond.len() - 1]
    );
    run.kill_all();
}
