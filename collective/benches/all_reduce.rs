//! The cost of an all-reduce, compared with what the machine can do: `cargo bench -p whimbrel-collective`.
//!
//! Workers are threads of this process, over loopback, and share its cores: with more workers than cores, read the
//! figures as work done, not as speed of a worker. Each figure is the best of several rounds.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot set itself up has nothing to say")]

mod fixed_point;

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use whimbrel_collective::{Accumulator, Endpoint, Limits, Reduction, Traffic};
use whimbrel_plan::{Generation, Member, Origin, WorkerId};

/// 64 MiB of gradient.
const ELEMENTS: usize = 16 << 20;
const ROUNDS: u64 = 9;

fn main() {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, {} MiB of f32, workers are threads over loopback\n", (ELEMENTS * 4) >> 20);
    let raw = raw_stream();
    println!("raw loopback stream, one writer and one reader: {raw:.2} GB/s\n");

    println!("all-reduce             workers  shares        ms   GB/s  limit  MB sent by a worker");
    for (name, reduction, shares) in [
        ("exact", Reduction::Exact, vec![16]),
        ("exact, aligned", Reduction::Exact, vec![8, 8]),
        ("exact, unaligned", Reduction::Exact, vec![7, 9]),
        ("exact, badly unaligned", Reduction::Exact, vec![5, 11]),
        ("f32", Reduction::F32, vec![8, 8]),
        ("exact, aligned", Reduction::Exact, vec![4, 4, 4, 4]),
        ("exact, unaligned", Reduction::Exact, vec![3, 5, 5, 3]),
        ("f32", Reduction::F32, vec![4, 4, 4, 4]),
    ] {
        let (took, sent) = all_reduce(reduction, &shares);
        row(name, &shares, took, sent, raw);
    }
    for workers in [2, 4] {
        let (took, sent) = fixed_point::all_reduce(workers, ELEMENTS, ROUNDS);
        row("fixed point i64", &vec![16 / workers as u32; workers], took, sent, raw);
    }
    println!(
        "\nlimit: the f32 ring's bytes, 2(W-1) times the gradient in all, at the speed of the raw stream\n"
    );
    accumulator();
}

fn row(name: &str, shares: &[u32], took: Duration, sent: u64, raw: f64) {
    let payload = (ELEMENTS * 4) as f64 / 1e9;
    let rate = payload / took.as_secs_f64();
    let limit = match shares.len() {
        1 => String::from("    -"),
        workers => format!("{:5.2}", raw / (2 * (workers - 1)) as f64),
    };
    let (workers, shares) = (shares.len(), format!("{shares:?}"));
    let (ms, sent) = (took.as_secs_f64() * 1e3, sent as f64 / 1e6);
    println!("{name:22} {workers:7}  {shares:12} {ms:4.0}  {rate:5.2}  {limit}  {sent:6.0}");
}

/// The best time of a step's all-reduce, measured at the slowest rank, and the most bytes that a rank sent.
fn all_reduce(reduction: Reduction, shares: &[u32]) -> (Duration, u64) {
    let bind = |_| Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let mut endpoints: Vec<Endpoint> = shares.iter().map(bind).collect();
    let member = |(rank, (endpoint, &share)): (usize, (&Endpoint, &u32))| Member {
        worker: WorkerId(rank as u64 + 1),
        address: endpoint.local_address(),
        share,
        holds: None,
    };
    let generation = Generation {
        run: "bench".parse().unwrap(),
        epoch: 1,
        number: 1,
        shards: shares.iter().sum(),
        origin: Origin::Initial,
        members: endpoints.iter().zip(shares).enumerate().map(member).collect(),
        key: [7; 32],
    };
    let limits = Limits { connect: Duration::from_secs(30), step: Duration::from_secs(30) };
    let together = Barrier::new(shares.len());
    let work = |rank: usize, endpoint: &mut Endpoint| {
        let mut group = endpoint.join(&generation, rank, limits).unwrap();
        let mut accumulator = Accumulator::new(reduction, ELEMENTS, generation.shards);
        accumulator.begin(generation.assignment(rank, 0));
        for shard in generation.assignment(rank, 0) {
            accumulator.next().fill(shard as f32);
            accumulator.push();
        }
        let mut sum = vec![0.0; ELEMENTS];
        let steps = (0..ROUNDS).map(|step| {
            together.wait();
            group.all_reduce(step, &accumulator, b"", &mut sum).unwrap();
            group.traffic()
        });
        steps.collect::<Vec<Traffic>>()
    };
    let traffic: Vec<Vec<Traffic>> = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = endpoints
            .iter_mut()
            .enumerate()
            .map(|(rank, endpoint)| scope.spawn(move || work(rank, endpoint)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let slowest = |step: usize| traffic.iter().map(|steps| steps[step].took).max();
    let best = (0..ROUNDS as usize).filter_map(slowest).min().unwrap();
    (best, traffic.iter().map(|steps| steps[0].sent).max().unwrap())
}

/// GB/s of one TCP stream over loopback.
fn raw_stream() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut reader, _) = listener.accept().unwrap();
    let bytes = vec![1_u8; ELEMENTS * 4];
    let mut room = vec![0_u8; ELEMENTS * 4];
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&bytes).unwrap());
            reader.read_exact(&mut room).unwrap();
        });
        best = best.min(began.elapsed().as_secs_f64());
    }
    bytes.len() as f64 / best / 1e9
}

/// The local cost of summing, beside that of copying as many bytes.
fn accumulator() {
    const MODEL: usize = 800_000;
    const SHARDS: u32 = 16;
    println!("summing {SHARDS} shards of {MODEL} f32 on one thread    ms a shard");
    let gradient = vec![1.5_f32; MODEL];
    let per_shard = |work: &mut dyn FnMut()| {
        let time = |_| {
            let began = Instant::now();
            work();
            began.elapsed().as_secs_f64() * 1e3 / f64::from(SHARDS)
        };
        (0..40).map(time).fold(f64::MAX, f64::min)
    };
    // What a trainer does anyhow: it writes its gradient somewhere.
    let mut places = vec![vec![0.0_f32; MODEL]; 2];
    let write = per_shard(&mut || {
        for shard in 0..SHARDS as usize {
            places[shard % 2].copy_from_slice(black_box(&gradient));
        }
    });
    println!("{:45} {write:10.2}", "memcpy of a gradient, as a trainer writes one");
    for (name, reduction) in [("exact", Reduction::Exact), ("f32", Reduction::F32)] {
        let mut accumulator = Accumulator::new(reduction, MODEL, SHARDS);
        let both = per_shard(&mut || {
            accumulator.begin(0..SHARDS);
            for _ in 0..SHARDS {
                accumulator.next().copy_from_slice(black_box(&gradient));
                accumulator.push();
            }
        });
        println!("{:45} {both:10.2}", format!("the same into an accumulator, {name}"));
    }
}
