//! A keyed permutation of `0..len` in constant memory.

/// Rounds of the network. Four suffice for pseudo-randomness with ideal round functions (Luby and Rackoff, "How to
/// construct pseudorandom permutations from pseudorandom functions", 1988); two more make up for a round function that is
/// fast rather than ideal.
const ROUNDS: usize = 6;

/// A permutation of `0..len`, chosen by a key: a balanced Feistel network over the smallest even number of bits that
/// holds `len`, walked again until the value falls inside (Black and Rogaway, "Ciphers with arbitrary finite domains",
/// 2002). The walk takes under four passes on average, since the network's domain is under four times `len`.
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` under `key`. `len` is at most 2⁶².
    pub fn new(len: u64, key: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let mut keys = [0; ROUNDS];
        let mut state = key;
        for round_key in &mut keys {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *round_key = mix(state);
        }
        Self { len, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// The image of `index`, which must be below `len`.
    pub fn at(&self, index: u64) -> u64 {
        debug_assert!(index < self.len, "{index} is not below {}", self.len);
        let mut value = index;
        loop {
            value = self.network(value);
            if value < self.len {
                return value;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_hit_once() {
        for len in (1..70).chain([255, 256, 257, 1023, 4096, 5000]) {
            for key in [0, 1, u64::MAX] {
                let permutation = Permutation::new(len, key);
                let mut hit: Vec<u64> = (0..len).map(|index| permutation.at(index)).collect();
                hit.sort_unstable();
                assert!(hit.into_iter().eq(0..len), "len {len}, key {key}");
            }
        }
    }

    #[test]
    fn keys_and_neighbours_scatter() {
        let (a, b) = (Permutation::new(1 << 20, 1), Permutation::new(1 << 20, 2));
        let same = (0..10_000).filter(|&index| a.at(index) == b.at(index)).count();
        let adjacent = (0..10_000).filter(|&index| a.at(index).abs_diff(a.at(index + 1)) < 16).count();
        assert!(same < 5 && adjacent < 10, "{same} alike under two keys, {adjacent} neighbours kept");
    }

    #[test]
    fn the_order_never_changes_between_releases() {
        // Runs resume under later versions: these values are part of the format.
        let permutation = Permutation::new(1000, 42);
        let first: Vec<u64> = (0..6).map(|index| permutation.at(index)).collect();
        assert_eq!(first, [899, 754, 631, 534, 148, 897]);
    }
}
