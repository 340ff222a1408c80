//! What the all-reduces of a generation have in common.

use whimbrel_plan::{Generation, Node, tree::cover};

use crate::{accumulator::Reduction, combine::Program, slices::Slices};

/// The schedule of a generation's all-reduces, as one rank sees it: which rank sends how many partial sums, which part
/// of the gradient each rank finishes, and the order in which it adds.
///
/// It is a function of the generation's assignment and the gradient's size. A [`Group`](crate::Group) computes it in
/// the first step and keeps it: with N members that takes O(N log shards), and each further step O(N).
#[derive(Debug)]
pub struct Schedule {
    pub(crate) me: usize,
    pub(crate) reduction: Reduction,
    pub(crate) slices: Slices,
    /// By rank, how many partial sums it has.
    pub(crate) parts: Vec<usize>,
    /// The order in which the partial sums of all ranks are added.
    pub(crate) order: Program,
    /// By rank, the shard after the last one that it computes: what the schedule was computed for.
    ends: Vec<u32>,
}

impl Schedule {
    /// The schedule for rank `me` of `generation` in step `step`, for a gradient of `elements` elements.
    pub fn new(generation: &Generation, me: usize, step: u64, reduction: Reduction, elements: usize) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let (mut parts, mut ends) = (Vec::new(), Vec::new());
        for shards in generation.assignments(step) {
            ends.push(shards.end);
            let covered = cover(shards, generation.shards);
            // Without the tree a rank that computes any shard has one sum.
            parts.push(match reduction {
                Reduction::Exact => covered.len(),
                Reduction::F32 => covered.len().min(1),
            });
            nodes.extend(covered);
        }
        let order = match reduction {
            Reduction::Exact => Program::tree(generation.shards, &nodes),
            Reduction::F32 => Program::line(parts.iter().sum()),
        };
        let slices = Slices { elements, ranks: generation.members.len() };
        Self { me, reduction, slices, parts, order, ends }
    }

    /// Whether it is the schedule of step `step` of `generation`, its own, for such a gradient.
    pub fn fits(&self, generation: &Generation, step: u64, reduction: Reduction, elements: usize) -> bool {
        self.reduction == reduction
            && self.slices.elements == elements
            && generation.assignments(step).map(|shards| shards.end).eq(self.ends.iter().copied())
    }

    /// Elements that the partial sums of `rank` take in this rank's inbox.
    pub(crate) fn inbox_of(&self, rank: usize) -> usize {
        if rank == self.me { 0 } else { self.parts[rank] * self.slices.slice(self.me).len() }
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_plan::{Member, Origin, WorkerId};

    use super::*;

    fn generation(shares: &[u32]) -> Generation {
        let address = ([127, 0, 0, 1], 1).into();
        let member = |&share| Member { worker: WorkerId(1), address, share, holds: None };
        let (run, origin, key) = ("r".parse().unwrap(), Origin::Initial, [0; 32]);
        let (shards, members) = (shares.iter().sum(), shares.iter().map(member).collect());
        Generation { run, epoch: 1, number: 1, shards, origin, members, key }
    }

    #[test]
    fn a_schedule_fits_every_step_of_its_generation_and_no_other() {
        let own = generation(&[3, 0, 5]);
        for (reduction, parts) in [(Reduction::Exact, [2, 0, 2]), (Reduction::F32, [1, 0, 1])] {
            let schedule = Schedule::new(&own, 0, 0, reduction, 10);
            assert_eq!(schedule.parts, parts);
            assert!(schedule.fits(&own, 0, reduction, 10) && schedule.fits(&own, 9, reduction, 10));
            assert!(!schedule.fits(&own, 0, reduction, 11));
            assert!(!schedule.fits(&generation(&[4, 0, 4]), 0, reduction, 10));
            assert!(!schedule.fits(&generation(&[3, 0, 5, 0]), 0, reduction, 10));
            // Rank 0 finishes 3 of the 10 elements.
            assert_eq!([0, 1, 2].map(|rank| schedule.inbox_of(rank)), [0, 0, 3 * parts[2]]);
        }
        let schedule = Schedule::new(&own, 0, 0, Reduction::Exact, 10);
        assert!(!schedule.fits(&own, 0, Reduction::F32, 10));
    }
}
