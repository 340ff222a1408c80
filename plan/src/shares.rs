//! How many of a step's shards each worker computes.

/// Splits `shards` among `workers` as evenly as possible: the first workers take one more each if there is a remainder. With
/// more workers than shards, the last ones take none.
pub fn equal_shares(shards: u32, workers: usize) -> Vec<u32> {
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    let (each, more) = (shards / workers, shards % workers);
    (0..workers).map(|rank| each + u32::from(rank < more)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for shards in 1..40 {
            for workers in 1..20 {
                let shares = equal_shares(shards, workers);
                assert_eq!((shares.len(), shares.iter().sum::<u32>()), (workers, shards));
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }
}
