//! The sum must not show who computed what.

mod group;

use group::{LIMITS, bits, compute, gradient, members, together};
use proptest::prelude::*;
use whimbrel_collective::{Accumulator, Reduction};
use whimbrel_plan::{Node, equal_shares};

/// The bits by definition: the tree, evaluated one element at a time, without workers.
fn by_definition(shards: u32, elements: usize, steps: u64) -> Vec<u32> {
    fn value(node: Node, shards: u32, step: u64, element: usize) -> f32 {
        match node.halves() {
            None => gradient(step, node.index, element),
            Some((left, right)) if right.span(shards).is_empty() => value(left, shards, step, element),
            Some((left, right)) => value(left, shards, step, element) + value(right, shards, step, element),
        }
    }
    let places = (0..steps).flat_map(|step| (0..elements).map(move |element| (step, element)));
    places.map(|(step, element)| value(Node::root(shards), shards, step, element).to_bits()).collect()
}

#[test]
fn any_number_of_workers_gets_the_bits_of_the_tree() {
    for shards in [16, 13, 1, 3] {
        // The last two are shorter than the number of ranks: some slices have no element.
        for elements in [4099, 5, 0] {
            let expected = by_definition(shards, elements, 2);
            for workers in [1, 2, 3, 4, 5, 8, 16] {
                let found = bits(Reduction::Exact, &equal_shares(shards, workers), elements, 2);
                assert_eq!(found, expected, "{workers} workers, {shards} shards, {elements} elements");
            }
        }
    }
}

#[test]
fn slices_of_many_chunks_keep_their_bits() {
    let elements = 300_007;
    let expected = by_definition(6, elements, 1);
    assert_eq!(bits(Reduction::Exact, &[6], elements, 1), expected);
    assert_eq!(bits(Reduction::Exact, &[5, 0, 1], elements, 1), expected);
}

#[test]
fn a_worker_without_shards_takes_part() {
    let expected = by_definition(8, 1000, 2);
    assert_eq!(bits(Reduction::Exact, &[0, 8, 0], 1000, 2), expected);
    assert_eq!(bits(Reduction::Exact, &[3, 0, 5], 1000, 2), expected);
}

#[test]
fn aligned_shares_cost_the_bytes_of_a_ring() {
    let elements = 40_000;
    let (mut endpoints, generation) = members(&[4; 4]);
    let traffic = together(&mut endpoints, &generation, LIMITS, |mut group| {
        let mut accumulator = Accumulator::new(Reduction::Exact, elements, generation.shards);
        compute(&mut accumulator, &generation, group.rank(), 0);
        group.all_reduce(0, &accumulator, b"", &mut vec![0.0; elements]).unwrap();
        group.traffic()
    });
    let ring = 2 * 3 * (elements as u64) * 4 / 4;
    // A header each for a note, a chunk of partial sums and one of sums, to three peers.
    let headers = 3 * 3 * 64;
    for traffic in traffic {
        assert_eq!((traffic.sent, traffic.received), (ring + headers, ring + headers));
        assert!(traffic.waited <= traffic.took);
    }
}

#[test]
fn f32_shows_the_membership_where_exact_does_not() {
    // What keeps the tests above honest: with these gradients, the order of adding is visible.
    let alone = bits(Reduction::F32, &[16], 4099, 1);
    for shares in [vec![8, 8], vec![5, 6, 5], vec![4; 4], vec![0, 9, 7]] {
        let shared = bits(Reduction::F32, &shares, 4099, 1);
        let differ = shared.iter().zip(&alone).filter(|(shared, alone)| shared != alone).count();
        assert!(differ > 400, "only {differ} of 4099 elements differ with shares {shares:?}");
        for (shared, alone) in shared.iter().zip(&alone) {
            let (shared, alone) = (f32::from_bits(*shared), f32::from_bits(*alone));
            assert!((shared - alone).abs() <= 4.0, "{shared} and {alone} are not the same sum");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_shares_keep_the_bits(
        shares in prop::collection::vec(0_u32..7, 1..7).prop_filter("somebody works", |shares| shares.iter().any(|&share| share > 0)),
        elements in 0_usize..500,
    ) {
        let expected = by_definition(shares.iter().sum(), elements, 1);
        prop_assert_eq!(bits(Reduction::Exact, &shares, elements, 1), expected);
    }
}
