//! A small seeded random generator, for initial weights and for sampling.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator. Equal seeds give equal sequences on every machine.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in `0 ≤ x < 1`.
    pub fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // An f32 holds 24 bits exactly.
        (bits >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Approximately normal, with mean 0 and variance 1: the sum of twelve uniform numbers minus six. It uses no
    /// function whose last bit differs between machines.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moments_are_those_of_a_normal_distribution() {
        let mut random = Random::new(5);
        let draws: Vec<f64> = (0..100_000).map(|_| f64::from(random.normal())).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
