//! The sums that a worker computes by itself, shard by shard.

use std::{fmt, mem, ops::Range};

use whimbrel_plan::Node;

use crate::combine::add;

/// Elements added at a time when one leaf closes several levels: a block of every buffer fits the first-level cache.
const BLOCK: usize = 1024;

/// How gradients are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Along the fixed tree over the shard index: the same bits whatever the membership.
    Exact,
    /// Shard after shard, then rank after rank: fewest bytes, but the bits depend on who computed what.
    F32,
}

/// This worker's partial sums of one step's gradient: one buffer per tree node of its shards
/// ([`Reduction::Exact`]), or a single sum ([`Reduction::F32`]).
///
/// ```
/// # use whimbrel_collective::{Accumulator, Reduction};
/// let mut accumulator = Accumulator::new(Reduction::Exact, 1000, 16);
/// accumulator.begin(4..8);
/// for shard in 4..8 {
///     accumulator.next().fill(shard as f32);
///     accumulator.push();
/// }
/// let (node, sum) = accumulator.partials().next().unwrap();
/// assert_eq!((node.span(16), sum[0]), (4..8, 22.0));
/// ```
///
/// Works as a binary counter: a finished node waits for its right sibling and is then added to it. The buffers, at
/// most two per level of the tree and usually far fewer, are allocated when first needed and kept.
pub struct Accumulator {
    reduction: Reduction,
    elements: usize,
    shards: u32,
    range: Range<u32>,
    /// Calls of `push` since `begin`. [`Group::all_reduce`](crate::Group::all_reduce) refuses more than the range
    /// holds.
    pushed: u32,
    /// Finished nodes that could not be added to a neighbour yet, from left to right.
    finished: Vec<(Node, Vec<f32>)>,
    /// Where the next shard's gradient is written; empty until asked for.
    leaf: Vec<f32>,
    free: Vec<Vec<f32>>,
}

impl Accumulator {
    /// An accumulator for gradients of `elements` elements, in steps of `shards` shards.
    pub fn new(reduction: Reduction, elements: usize, shards: u32) -> Self {
        Self {
            reduction,
            elements,
            shards,
            range: 0..0,
            pushed: 0,
            finished: Vec::new(),
            leaf: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Starts a step in which this worker computes the shards `range`. Earlier sums are dropped.
    pub fn begin(&mut self, range: Range<u32>) {
        self.free.extend(self.finished.drain(..).map(|(_, buffer)| buffer));
        self.range = range;
        self.pushed = 0;
    }

    /// The buffer for the next shard's gradient. The caller writes every element: the buffer holds values of other
    /// shards.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend its own buffer")]
    pub fn next(&mut self) -> &mut [f32] {
        if self.leaf.len() != self.elements {
            self.leaf = self.free.pop().unwrap_or_else(|| vec![0.0; self.elements]);
        }
        &mut self.leaf
    }

    /// Adds what was written to [`next`](Self::next), as the gradient of the next shard of the range, in order.
    ///
    /// Called once per shard of the range. With more or fewer calls, [`Group::all_reduce`](crate::Group::all_reduce)
    /// refuses the sums as misuse.
    pub fn push(&mut self) {
        let shard = self.range.start.saturating_add(self.pushed);
        self.pushed = self.pushed.saturating_add(1);
        if !self.range.contains(&shard) {
            return;
        }
        self.next();
        match self.reduction {
            Reduction::Exact => self.push_leaf(shard),
            Reduction::F32 => match self.finished.first_mut() {
                Some((_, sum)) => add(sum, &self.leaf),
                None => self.finished.push((Node::root(self.shards), mem::take(&mut self.leaf))),
            },
        }
    }

    /// Adds a leaf to the finished nodes on its left that it completes.
    fn push_leaf(&mut self, shard: u32) {
        let (node, closed) = self.climb(Node::leaf(shard));
        let leaf = mem::take(&mut self.leaf);
        let first = self.finished.len() - closed;
        if closed == 0 {
            self.finished.push((node, leaf));
            return;
        }
        let (left, between) = self.finished[first..].split_at_mut(1);
        fold(&mut left[0].1, between, &leaf);
        left[0].0 = node;
        self.free.extend(self.finished.drain(first + 1..).map(|(_, buffer)| buffer));
        self.free.push(leaf);
    }

    /// The tallest node that becomes complete with `node`, and how many of the finished nodes become part of it.
    fn climb(&self, mut node: Node) -> (Node, usize) {
        let mut closed = 0;
        while node != Node::root(self.shards) {
            if node.is_right() {
                let left = Node { index: node.index - 1, ..node };
                match self.finished.iter().rev().nth(closed) {
                    Some((neighbour, _)) if *neighbour == left => closed += 1,
                    _ => break,
                }
            } else if node.parent().span(self.shards) != node.span(self.shards) {
                // The right half holds shards, and they come later. Where it holds none, the parent is this node.
                break;
            }
            node = node.parent();
        }
        (node, closed)
    }

    /// The partial sums, from left to right. With [`Reduction::F32`] that is one at most, and its node is the root.
    pub fn partials(&self) -> impl Iterator<Item = (Node, &[f32])> {
        self.finished.iter().map(|(node, sum)| (*node, sum.as_slice()))
    }

    /// How gradients are summed.
    pub fn reduction(&self) -> Reduction {
        self.reduction
    }

    /// Elements of the gradient.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Shards of a step.
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// The shards of this step that this worker computes.
    pub(crate) fn range(&self) -> Range<u32> {
        self.range.clone()
    }

    /// How often `push` was called in this step.
    pub(crate) fn pushed(&self) -> u32 {
        self.pushed
    }
}

impl fmt::Debug for Accumulator {
    /// Without the gradients.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accumulator")
            .field("reduction", &self.reduction)
            .field("elements", &self.elements)
            .field("shards", &self.shards)
            .field("range", &self.range)
            .field("pushed", &self.pushed)
            .finish_non_exhaustive()
    }
}

/// `left + (between[0] + (between[1] + … + leaf))` into `left`.
///
/// One pass over memory however many levels are closed: a block climbs to the top while it is in the cache, and only
/// the result is written.
fn fold(left: &mut [f32], between: &[(Node, Vec<f32>)], leaf: &[f32]) {
    if between.is_empty() {
        return add(left, leaf);
    }
    let mut block = [0.0; BLOCK];
    for (index, left) in left.chunks_mut(BLOCK).enumerate() {
        let range = index * BLOCK..index * BLOCK + left.len();
        let block = &mut block[..left.len()];
        block.copy_from_slice(&leaf[range.clone()]);
        for (_, buffer) in between.iter().rev() {
            for (right, left) in block.iter_mut().zip(&buffer[range.clone()]) {
                *right += left;
            }
        }
        add(left, block);
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_plan::tree::cover;

    use super::*;

    fn leaf(shard: u32, element: usize) -> f32 {
        ((u64::from(shard) * 7919 + element as u64) * 2_654_435_761 % 1_000_003) as f32 * 1e-3 - 500.0
    }

    /// The sum of a node by its definition.
    fn value(node: Node, shards: u32, element: usize) -> f32 {
        match node.halves() {
            None => leaf(node.index, element),
            Some((left, right)) if right.span(shards).is_empty() => value(left, shards, element),
            Some((left, right)) => value(left, shards, element) + value(right, shards, element),
        }
    }

    #[test]
    fn partial_sums_are_the_nodes_of_the_cover_with_their_bits() {
        let elements = BLOCK + 3;
        for shards in [1, 2, 3, 5, 8, 13, 16] {
            let mut accumulator = Accumulator::new(Reduction::Exact, elements, shards);
            for (start, end) in (0..=shards).flat_map(|end| (0..=end).map(move |start| (start, end))) {
                accumulator.begin(start..end);
                for shard in start..end {
                    let next = accumulator.next().iter_mut().enumerate();
                    next.for_each(|(element, place)| *place = leaf(shard, element));
                    accumulator.push();
                }
                let nodes: Vec<Node> = accumulator.partials().map(|(node, _)| node).collect();
                assert_eq!(nodes, cover(start..end, shards), "{start}..{end} of {shards}");
                for (node, sum) in accumulator.partials() {
                    for element in [0, 1, BLOCK - 1, BLOCK, elements - 1] {
                        assert_eq!(sum[element].to_bits(), value(node, shards, element).to_bits());
                    }
                }
            }
            let buffers = accumulator.free.len() + accumulator.finished.len() + 1;
            let bound = 2 * Node::root(shards).level as usize + 2;
            assert!(buffers <= bound, "{buffers} buffers for {shards} shards, where {bound} suffice");
        }
    }

    #[test]
    fn f32_is_one_sum_in_order() {
        let mut accumulator = Accumulator::new(Reduction::F32, 1, 8);
        for _ in 0..2 {
            accumulator.begin(2..5);
            for value in [1e8_f32, 1.0, -1e8] {
                accumulator.next()[0] = value;
                accumulator.push();
            }
            let sums: Vec<f32> = accumulator.partials().map(|(_, sum)| sum[0]).collect();
            assert_eq!(sums, [(1e8_f32 + 1.0) - 1e8]);
        }
    }

    #[test]
    fn a_push_too_many_changes_no_sum_and_is_remembered() {
        let mut accumulator = Accumulator::new(Reduction::Exact, 1, 4);
        accumulator.begin(0..1);
        for value in [3.0, 5.0] {
            accumulator.next()[0] = value;
            accumulator.push();
        }
        let sums: Vec<f32> = accumulator.partials().map(|(_, sum)| sum[0]).collect();
        assert_eq!((sums, accumulator.pushed()), (vec![3.0], 2));
    }
}
