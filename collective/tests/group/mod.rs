//! Workers as threads, over loopback.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{net::SocketAddr, thread, time::Duration};

use whimbrel_collective::{Accumulator, Endpoint, Group, Limits, Reduction};
use whimbrel_plan::{Generation, Member, Origin, WorkerId};

/// Long enough for the slowest machine; tests that wait it out have failed.
pub(crate) const LIMITS: Limits = Limits { connect: Duration::from_secs(20), step: Duration::from_secs(20) };

/// Endpoints on free ports, as many as there are shares, and the generation they form.
pub(crate) fn members(shares: &[u32]) -> (Vec<Endpoint>, Generation) {
    let bind = |_| Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let endpoints: Vec<Endpoint> = shares.iter().map(bind).collect();
    let addresses: Vec<SocketAddr> = endpoints.iter().map(Endpoint::local_address).collect();
    let generation = generation(shares, &addresses);
    (endpoints, generation)
}

/// Generation 5 of a run; worker `w100` has rank 0, `w101` rank 1 and so on.
pub(crate) fn generation(shares: &[u32], addresses: &[SocketAddr]) -> Generation {
    let member = |(rank, (&share, &address)): (usize, (&u32, &SocketAddr))| Member {
        worker: WorkerId(rank as u64 + 100),
        address,
        share,
        holds: None,
    };
    Generation {
        run: "group".parse().unwrap(),
        epoch: 2,
        number: 5,
        shards: shares.iter().sum(),
        origin: Origin::Initial,
        members: shares.iter().zip(addresses).enumerate().map(member).collect(),
        key: [42; 32],
    }
}

/// Joins a generation with one thread per worker and returns what each made of its group, by rank.
pub(crate) fn together<R: Send>(
    endpoints: &mut [Endpoint],
    generation: &Generation,
    limits: Limits,
    work: impl Fn(Group) -> R + Sync,
) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = endpoints
            .iter_mut()
            .enumerate()
            .map(|(rank, endpoint)| {
                scope.spawn(move || work(endpoint.join(generation, rank, limits).unwrap()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A shard's gradient: values of very different size, so that every order of adding has bits of its own.
pub(crate) fn gradient(step: u64, shard: u32, element: usize) -> f32 {
    let mixed = (step << 40 | u64::from(shard) << 32 | element as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20;
    let size = [1e-3, 1.0, 1e3, 1e6][(mixed % 4) as usize];
    ((mixed >> 2) as f32 / (1_u64 << 42) as f32 - 0.5) * size
}

/// Computes the shards of a rank in a step.
pub(crate) fn compute(accumulator: &mut Accumulator, generation: &Generation, rank: usize, step: u64) {
    accumulator.begin(generation.assignment(rank, step));
    for shard in generation.assignment(rank, step) {
        let gradient = accumulator.next().iter_mut().enumerate();
        gradient.for_each(|(element, place)| *place = self::gradient(step, shard, element));
        accumulator.push();
    }
}

/// The bits of the sums of `steps` steps among workers of these shares, which all agree on.
pub(crate) fn bits(reduction: Reduction, shares: &[u32], elements: usize, steps: u64) -> Vec<u32> {
    let (mut endpoints, generation) = members(shares);
    let mut sums = together(&mut endpoints, &generation, LIMITS, |mut group| {
        let mut accumulator = Accumulator::new(reduction, elements, generation.shards);
        let mut bits = Vec::new();
        for step in 0..steps {
            compute(&mut accumulator, &generation, group.rank(), step);
            let mut sum = vec![f32::NAN; elements];
            let note = [group.rank() as u8, step as u8];
            let notes = group.all_reduce(step, &accumulator, &note[..group.rank() % 3], &mut sum).unwrap();
            for (rank, note) in notes.iter().enumerate() {
                assert_eq!(*note, [rank as u8, step as u8][..rank % 3]);
            }
            bits.extend(sum.into_iter().map(f32::to_bits));
        }
        bits
    });
    let first = sums.swap_remove(0);
    assert!(
        sums.iter().all(|other| *other == first),
        "ranks disagree: shares {shares:?}, {elements} elements"
    );
    first
}
