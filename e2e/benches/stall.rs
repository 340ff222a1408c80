//! Stall: how long a checkpoint blocks training, compared with a copy of the same bytes in memory.
//!
//! `cargo bench -p whimbrel-e2e --bench stall [-- MEBIBYTES [SAVES]]` trains a program with a state of MEBIBYTES (1024)
//! MiB, with one worker and with two, and takes a checkpoint every few steps. For each save it prints the stall of the
//! worker that was blocked longest. The copy is of one worker's slice, between two buffers that were written before, in
//! this process after the run, with one thread per worker.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints its table, and panics on errors"
)]

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use whimbrel_e2e::{run::Run, spec::Spec};

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let mebibytes = numbers.first().copied().unwrap_or(1024);
    let saves = numbers.get(1).copied().unwrap_or(8);
    println!(
        "{:>8}{:>12}{:>14}{:>14}   stall of each save, ms",
        "workers", "slice MiB", "copy ms", "stall / copy"
    );
    for workers in [1, 2] {
        let stalls = stalls(mebibytes, workers, saves);
        let slice = mebibytes / workers;
        let copy = copy(slice << 20, workers);
        let shown: Vec<String> = stalls.iter().map(|stall| format!("{stall:.0}")).collect();
        let ratio = median(stalls) / copy;
        println!("{workers:>8}{slice:>12}{copy:>14.1}{ratio:>14.2}   {}", shown.join(" "));
    }
}

/// The stalls of `saves` checkpoints of one run, in milliseconds.
fn stalls(mebibytes: usize, workers: usize, saves: usize) -> Vec<f64> {
    let settings = format!("ballast_mib = {mebibytes}");
    let spec = Spec { checkpoint_every: 5, ..Spec::faulty(1_000_000, &settings) };
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::start(&spec, folder.path(), &["--workers", &workers.to_string()]);
    let mut stalls = Vec::new();
    while stalls.len() < saves {
        let event = run.until("a checkpoint", |event| event["event"] == "checkpoint");
        stalls.push(event["blocked_seconds"].as_f64().unwrap() * 1e3);
    }
    run.kill_all();
    stalls
}

/// The median time of copying `bytes` bytes, in milliseconds, in each of `threads` concurrent threads.
fn copy(bytes: usize, threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let timed = || {
        let (from, mut to) = (vec![1_u8; bytes], vec![2_u8; bytes]);
        let rounds = (0..7).map(|_| {
            barrier.wait();
            let began = Instant::now();
            black_box(&mut to).copy_from_slice(black_box(&from));
            began.elapsed()
        });
        rounds.collect::<Vec<Duration>>()
    };
    let times: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(timed)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    median(times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect())
}
