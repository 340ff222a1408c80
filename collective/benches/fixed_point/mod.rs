//! For comparison, another way to sums that do not depend on who computed what: gradients as 64-bit fixed point.
//!
//! Integer sums do not depend on their order. The exchange is the same direct one, chunk by chunk, with a thread per
//! peer for writing; each worker's sum travels as i64 to its slice's owner, and the result back as f32.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    ops::Range,
    sync::{Arc, Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

const CHUNK: usize = 64 * 1024;
/// Resolution 2⁻³², range ±2³¹.
const SCALE: f64 = (1_u64 << 32) as f64;

/// The best time of an all-reduce at the slowest rank, and the bytes that a rank sends.
pub(crate) fn all_reduce(workers: usize, elements: usize, rounds: u64) -> (Duration, u64) {
    let mut streams = mesh(workers);
    let together = Barrier::new(workers);
    let times: Vec<Vec<Duration>> = thread::scope(|scope| {
        let together = &together;
        let work = |(rank, mut peers): (usize, Vec<Option<TcpStream>>)| {
            scope.spawn(move || {
                // A worker's shards are in fixed point already when they are added up locally.
                let sum: Vec<i64> = (0..elements).map(|element| element as i64).collect();
                let mut total = vec![0_f32; elements];
                let steps = (0..rounds).map(|_| {
                    together.wait();
                    let began = Instant::now();
                    step(rank, workers, &mut peers, &sum, &mut total);
                    began.elapsed()
                });
                steps.collect()
            })
        };
        let threads: Vec<_> = streams.drain(..).enumerate().map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let slowest = |step: usize| times.iter().map(|steps| steps[step]).max();
    let best = (0..rounds as usize).filter_map(slowest).min().unwrap();
    let slice = (elements / workers) as u64;
    (best, slice * (workers as u64 - 1) * (8 + 4))
}

fn step(rank: usize, workers: usize, peers: &mut [Option<TcpStream>], sum: &[i64], total: &mut [f32]) {
    let slice = |rank: usize| sum.len() * rank / workers..sum.len() * (rank + 1) / workers;
    let chunks = |slice: Range<usize>| {
        slice.clone().step_by(CHUNK).map(move |start| start..(start + CHUNK).min(slice.end))
    };
    thread::scope(|scope| {
        let mut results = Vec::new();
        for (peer, stream) in peers.iter().enumerate() {
            let Some(mut stream) = stream.as_ref().map(|stream| stream.try_clone().unwrap()) else {
                continue;
            };
            let (result, ready) = mpsc::channel::<Arc<Vec<f32>>>();
            results.push(result);
            scope.spawn(move || {
                for chunk in chunks(slice(peer)) {
                    stream.write_all(bytemuck::cast_slice(&sum[chunk])).unwrap();
                }
                for chunk in ready {
                    stream.write_all(bytemuck::cast_slice(&chunk)).unwrap();
                }
            });
        }
        let mut arriving = vec![0_i64; CHUNK];
        for chunk in chunks(slice(rank)) {
            let mut own = sum[chunk.clone()].to_vec();
            for stream in peers.iter_mut().flatten() {
                let arriving = &mut arriving[..chunk.len()];
                stream.read_exact(bytemuck::cast_slice_mut(arriving)).unwrap();
                own.iter_mut().zip(arriving).for_each(|(own, arriving)| *own = own.wrapping_add(*arriving));
            }
            let result = Arc::new(own.iter().map(|&sum| (sum as f64 / SCALE) as f32).collect::<Vec<f32>>());
            total[chunk].copy_from_slice(&result);
            results.iter().for_each(|peer| peer.send(Arc::clone(&result)).unwrap());
        }
        drop(results);
        for (peer, stream) in peers.iter_mut().enumerate() {
            if let Some(stream) = stream {
                stream.read_exact(bytemuck::cast_slice_mut(&mut total[slice(peer)])).unwrap();
            }
        }
    });
}

/// Streams among all, by rank and peer.
fn mesh(workers: usize) -> Vec<Vec<Option<TcpStream>>> {
    let mut streams: Vec<Vec<Option<TcpStream>>> =
        (0..workers).map(|_| (0..workers).map(|_| None).collect()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (a, b) in (0..workers).flat_map(|b| (0..b).map(move |a| (a, b))) {
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for stream in [&dialled, &accepted] {
            stream.set_nodelay(true).unwrap();
        }
        (streams[a][b], streams[b][a]) = (Some(dialled), Some(accepted));
    }
    streams
}
