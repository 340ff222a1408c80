//! The order in which the partial sums of all workers are added, and the adding.

use std::{
    iter::{Copied, Enumerate, Peekable},
    slice,
};

use whimbrel_plan::Node;

/// Elements added at a time: the intermediate sums of a block stay in the first-level cache.
const BLOCK: usize = 2048;

/// An order in which partial sums are added, as a program for a small stack machine. The sums are numbered from left to
/// right.
#[derive(Debug)]
pub(crate) struct Program {
    instructions: Vec<Instruction>,
    depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    /// Put a sum on the stack.
    Load(usize),
    /// Add a sum to the top of the stack.
    Add(usize),
    /// Take the top off the stack and add it to what is then the top.
    Merge,
}

/// The nodes whose values are the sums, numbered.
type Sums<'a> = Peekable<Enumerate<Copied<slice::Iter<'a, Node>>>>;

impl Program {
    /// The order of the tree over `shards` shards. The sums are the values of `nodes`, from left to right, each shard
    /// under exactly one of them. Takes time linear in the number of nodes.
    pub(crate) fn tree(shards: u32, nodes: &[Node]) -> Self {
        let mut program = Self { instructions: Vec::new(), depth: 0 };
        program.visit(Node::root(shards), shards, &mut nodes.iter().copied().enumerate().peekable(), 1);
        program
    }

    /// `count` sums from left to right.
    pub(crate) fn line(count: usize) -> Self {
        let instructions =
            (0..count).map(|sum| if sum == 0 { Instruction::Load(sum) } else { Instruction::Add(sum) });
        Self { instructions: instructions.collect(), depth: 1 }
    }

    /// Appends what puts the value of `node` on the stack, as its `depth`-th entry. `sums` are those that are not added
    /// yet: the tree is walked from left to right, so the next of them is the only one that can be `node`.
    fn visit(&mut self, node: Node, shards: u32, sums: &mut Sums<'_>, depth: usize) {
        self.depth = self.depth.max(depth);
        if let Some((sum, _)) = sums.next_if(|(_, one)| *one == node) {
            self.instructions.push(Instruction::Load(sum));
            return;
        }
        let Some((left, right)) = node.halves() else { return };
        self.visit(left, shards, sums, depth);
        if right.span(shards).is_empty() {
            return;
        }
        if let Some((sum, _)) = sums.next_if(|(_, one)| *one == right) {
            self.instructions.push(Instruction::Add(sum));
        } else {
            self.visit(right, shards, sums, depth + 1);
            self.instructions.push(Instruction::Merge);
        }
    }

    /// Adds `sums`, all as long as `total`, into `total`. No sums make zero.
    pub(crate) fn run(&self, sums: &[&[f32]], total: &mut [f32]) {
        if self.instructions.is_empty() {
            total.fill(0.0);
            return;
        }
        // The bottom of the stack is the result itself.
        let mut above = vec![0.0; self.depth.saturating_sub(1) * BLOCK];
        for (index, bottom) in total.chunks_mut(BLOCK).enumerate() {
            let (start, length) = (index * BLOCK, bottom.len());
            let mut stack: Vec<&mut [f32]> = vec![bottom];
            stack.extend(above.chunks_mut(BLOCK).map(|entry| &mut entry[..length]));
            let mut height = 0;
            for &one in &self.instructions {
                match one {
                    Instruction::Load(sum) => {
                        stack[height].copy_from_slice(&sums[sum][start..start + length]);
                        height += 1;
                    }
                    Instruction::Add(sum) => add(stack[height - 1], &sums[sum][start..start + length]),
                    Instruction::Merge => {
                        height -= 1;
                        let (lower, upper) = stack.split_at_mut(height);
                        add(lower[height - 1], upper[0]);
                    }
                }
            }
        }
    }
}

/// `left + right`, element by element, into `left`.
pub(crate) fn add(left: &mut [f32], right: &[f32]) {
    for (left, right) in left.iter_mut().zip(right) {
        *left += right;
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_plan::tree::cover;

    use super::*;

    #[test]
    fn any_cut_of_the_shards_adds_up_to_the_same_bits() {
        let shards = 13;
        let length = BLOCK + 5;
        let leaf = |shard: u32| -> Vec<f32> {
            (0..length).map(|element| ((shard as usize * 31 + element) as f32).sin() * 1e3).collect()
        };
        let leaves: Vec<Vec<f32>> = (0..shards).map(leaf).collect();
        let sum_of = |nodes: &[Node]| {
            // Each node's own value, by the program over its leaves alone.
            let values: Vec<Vec<f32>> = nodes
                .iter()
                .map(|node| {
                    let span = node.span(shards);
                    let inner: Vec<Node> = span.clone().map(Node::leaf).collect();
                    let mut program = Program { instructions: Vec::new(), depth: 0 };
                    // Leaves stand for themselves here: a node cut off by the edge is reached through its halves.
                    program.visit(*node, shards, &mut inner.iter().copied().enumerate().peekable(), 1);
                    let sums: Vec<&[f32]> = span.map(|shard| leaves[shard as usize].as_slice()).collect();
                    let mut value = vec![0.0; length];
                    program.run(&sums, &mut value);
                    value
                })
                .collect();
            let sums: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
            let mut total = vec![f32::NAN; length];
            Program::tree(shards, nodes).run(&sums, &mut total);
            total.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        let whole = sum_of(&cover(0..shards, shards));
        for first in 0..=shards {
            for second in first..=shards {
                let cuts = [0..first, first..second, second..shards];
                let nodes: Vec<Node> = cuts.into_iter().flat_map(|cut| cover(cut, shards)).collect();
                assert_eq!(sum_of(&nodes), whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn nothing_sums_to_zero() {
        let mut total = [7.0; 3];
        Program::line(0).run(&[], &mut total);
        assert_eq!(total, [0.0; 3]);
        Program::tree(0, &[]).run(&[], &mut total);
        assert_eq!(total, [0.0; 3]);
    }
}
