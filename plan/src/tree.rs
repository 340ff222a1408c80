//! The fixed binary tree over the shard index along which gradients are summed.
//!
//! A node of level `l` and index `i` spans the shards `i·2ˡ .. (i+1)·2ˡ`, cut off at the number of shards. Its value is the
//! sum of the values of its two halves, or the value of the left half if the right one spans no shard. The root's value is
//! the sum of the step. Floating-point addition is not associative, but the tree does not depend on which worker computes
//! which shard, and so neither do the bits of its root.

use std::ops::Range;

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The height above the leaves. A leaf, level 0, is one shard.
    pub level: u32,
    /// The position among the nodes of its level.
    pub index: u32,
}

impl Node {
    /// The leaf of a shard.
    pub fn leaf(shard: u32) -> Self {
        Self { level: 0, index: shard }
    }

    /// The root of the tree over `shards` shards.
    pub fn root(shards: u32) -> Self {
        Self { level: u32::BITS - shards.saturating_sub(1).leading_zeros(), index: 0 }
    }

    /// The shards that it spans, of `shards` in all.
    pub fn span(self, shards: u32) -> Range<u32> {
        let edge = |index: u64| u32::try_from(index << self.level).unwrap_or(u32::MAX).min(shards);
        edge(u64::from(self.index))..edge(u64::from(self.index) + 1)
    }

    /// The node above.
    pub fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index / 2 }
    }

    /// Whether it is the right half of its parent.
    pub fn is_right(self) -> bool {
        self.index % 2 == 1
    }

    /// The two halves; `None` for a leaf.
    pub fn halves(self) -> Option<(Self, Self)> {
        let level = self.level.checked_sub(1)?;
        Some((Self { level, index: 2 * self.index }, Self { level, index: 2 * self.index + 1 }))
    }
}

/// The fewest nodes that together span exactly `range`, from left to right: the partial sums that a worker with those
/// shards can compute alone. At most twice the height of the tree.
pub fn cover(range: Range<u32>, shards: u32) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut start = range.start;
    while start < range.end {
        // The tallest node that starts here and does not reach past the end.
        let mut node = Node::leaf(start);
        while !node.is_right() && node != Node::root(shards) && node.parent().span(shards).end <= range.end {
            node = node.parent();
        }
        nodes.push(node);
        start = node.span(shards).end;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_are_exact_and_small() {
        for shards in 1..70_u32 {
            for start in 0..shards {
                for end in start..=shards {
                    let nodes = cover(start..end, shards);
                    let spanned: Vec<u32> = nodes.iter().flat_map(|node| node.span(shards)).collect();
                    assert!(spanned.into_iter().eq(start..end), "{start}..{end} of {shards}: {nodes:?}");
                    assert!(nodes.len() <= 2 * Node::root(shards).level.max(1) as usize);
                }
            }
            assert_eq!(cover(0..shards, shards), [Node::root(shards)]);
        }
    }

    #[test]
    fn aligned_shares_are_one_node_each() {
        for rank in 0..4 {
            assert_eq!(cover(rank * 4..rank * 4 + 4, 16), [Node { level: 2, index: rank }]);
        }
        assert_eq!(cover(5..11, 16).len(), 4);
    }
}
