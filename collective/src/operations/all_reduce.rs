//! All-reduce: a direct reduce-scatter and a direct all-gather, in one.
//!
//! Rank j finishes slice j of the gradient. Everyone sends it, chunk by chunk, that slice of each of its partial sums;
//! when a chunk of every rank's partial sums is there, rank j combines them in the fixed order and sends the result to
//! everyone, while later chunks are still on their way. Between two peers, frames of one kind come in order of their
//! chunks, and how the kinds mix does not matter.
//!
//! With W workers and one partial sum each, a worker sends and receives 2(W−1)/W of the gradient's bytes, as with a ring,
//! but over two hops instead of 2(W−1).

use std::ops::Range;

use whimbrel_plan::{Generation, Node, tree::cover};

use crate::{
    accumulator::{Accumulator, Reduction},
    combine::Program,
    error::During,
    operations::exchange::Notes,
    slices::Slices,
    tcp::{
        frame::{Frame, Kind, Unexpected},
        operation::{Operation, Owed},
    },
};

/// An all-reduce under way.
pub(crate) struct AllReduce<'a> {
    step: u64,
    me: usize,
    reduction: Reduction,
    slices: Slices,
    /// By rank, how many partial sums it has.
    parts: Vec<usize>,
    partials: Vec<&'a [f32]>,
    program: Program,
    notes: Notes<'a>,
    progress: Vec<Progress>,
    /// By rank, its partial sums of this rank's slice: for one chunk after another, each sum's part of it.
    inbox: &'a mut [Vec<f32>],
    sum: &'a mut [f32],
    /// Chunks of this rank's slice that are finished in `sum`.
    finished: usize,
}

/// How many chunks were given out to a peer, and how many have come from it.
#[derive(Clone, Copy, Default)]
struct Progress {
    partials_given: usize,
    sums_given: usize,
    partials_taken: usize,
    sums_taken: usize,
}

impl<'a> AllReduce<'a> {
    /// The all-reduce of step `step` as rank `me` of `generation` takes part in it. `inbox` has an entry per rank.
    pub(crate) fn new(
        generation: &Generation,
        me: usize,
        step: u64,
        partials: &'a Accumulator,
        note: &'a [u8],
        inbox: &'a mut [Vec<f32>],
        sum: &'a mut [f32],
    ) -> Self {
        let ranks = generation.members.len();
        let slices = Slices { elements: sum.len(), ranks };
        let covers: Vec<Vec<Node>> =
            (0..ranks).map(|rank| cover(generation.assignment(rank, step), generation.shards)).collect();
        let (parts, program): (Vec<usize>, Program) = match partials.reduction() {
            Reduction::Exact => {
                (covers.iter().map(Vec::len).collect(), Program::tree(generation.shards, &covers.concat()))
            }
            // One sum of each rank that computes any shard.
            Reduction::F32 => {
                let parts: Vec<usize> = covers.iter().map(|nodes| nodes.len().min(1)).collect();
                let program = Program::line(parts.iter().sum());
                (parts, program)
            }
        };
        for (rank, inbox) in inbox.iter_mut().enumerate() {
            let sums = if rank == me { 0 } else { parts[rank] };
            inbox.resize(sums * slices.slice(me).len(), 0.0);
        }
        Self {
            step,
            me,
            reduction: partials.reduction(),
            slices,
            parts,
            partials: partials.partials().map(|(_, sum)| sum).collect(),
            program,
            notes: Notes::new(me, ranks, note),
            progress: vec![Progress::default(); ranks],
            inbox,
            sum,
            finished: 0,
        }
    }

    /// Every rank's note, once the operation is done.
    pub(crate) fn into_notes(self) -> Vec<Vec<u8>> {
        self.notes.into_notes()
    }

    /// How many chunks of partial sums `from` sends to `to`.
    fn partials_due(&self, from: usize, to: usize) -> usize {
        if self.parts[from] == 0 { 0 } else { self.slices.chunks(to) }
    }

    fn note_frame(&self, length: usize) -> Frame {
        // Ranks that sum differently, or other gradients, find out before they send any.
        let index = match self.reduction {
            Reduction::Exact => 1,
            Reduction::F32 => 2,
        };
        let start = self.slices.elements as u64;
        Frame { kind: Kind::Note, step: self.step, index, start, length: length as u64 }
    }

    fn partial_frame(&self, from: usize, to: usize, chunk: usize) -> Frame {
        let (parts, chunk) = (self.parts[from], self.slices.chunk(to, chunk));
        let length = (parts * chunk.len() * size_of::<f32>()) as u64;
        Frame { kind: Kind::Partial, step: self.step, index: parts as u32, start: chunk.start as u64, length }
    }

    fn sum_frame(&self, from: usize, chunk: usize) -> Frame {
        let chunk = self.slices.chunk(from, chunk);
        let length = (chunk.len() * size_of::<f32>()) as u64;
        Frame { kind: Kind::Sum, step: self.step, index: 0, start: chunk.start as u64, length }
    }

    /// Where a chunk of this rank's slice lies in the inbox of `rank`: all its sums' parts of it, one after another.
    fn place(&self, rank: usize, chunk: &Range<usize>) -> Range<usize> {
        let start = self.parts[rank] * (chunk.start - self.slices.slice(self.me).start);
        start..start + self.parts[rank] * chunk.len()
    }
}

impl Operation for AllReduce<'_> {
    fn during(&self) -> During {
        During::AllReduce { step: self.step }
    }

    /// Combines the next chunk of this rank's slice, if everyone's partial sums of it are there.
    fn work(&mut self) -> bool {
        let all_there = (0..self.slices.ranks)
            .filter(|&rank| rank != self.me)
            .all(|rank| self.parts[rank] == 0 || self.progress[rank].partials_taken > self.finished);
        if self.finished == self.slices.chunks(self.me) || !all_there {
            return false;
        }
        let chunk = self.slices.chunk(self.me, self.finished);
        let mut sums: Vec<&[f32]> = Vec::with_capacity(self.parts.iter().sum());
        for rank in 0..self.slices.ranks {
            if rank == self.me {
                sums.extend(self.partials.iter().map(|sum| &sum[chunk.clone()]));
            } else {
                let place = self.place(rank, &chunk);
                sums.extend(self.inbox[rank][place].chunks_exact(chunk.len()));
            }
        }
        self.program.run(&sums, &mut self.sum[chunk]);
        self.finished += 1;
        true
    }

    fn next_frame(&mut self, peer: usize) -> Option<Frame> {
        if !self.notes.is_given(peer) {
            self.notes.give(peer);
            return Some(self.note_frame(self.notes.own().len()));
        }
        let Progress { partials_given, sums_given, .. } = self.progress[peer];
        if sums_given < self.finished {
            // Finished sums first: they are in the cache still, and the peer's memory is where they end.
            self.progress[peer].sums_given += 1;
            return Some(self.sum_frame(self.me, sums_given));
        }
        if partials_given < self.partials_due(self.me, peer) {
            self.progress[peer].partials_given += 1;
            return Some(self.partial_frame(self.me, peer, partials_given));
        }
        None
    }

    fn has_more_for(&self, peer: usize) -> bool {
        let Progress { partials_given, sums_given, .. } = self.progress[peer];
        !self.notes.is_given(peer)
            || sums_given < self.slices.chunks(self.me)
            || partials_given < self.partials_due(self.me, peer)
    }

    fn payload<'a>(&'a self, _peer: usize, frame: &Frame) -> Vec<&'a [u8]> {
        let start = frame.start as usize;
        let elements = frame.length as usize / size_of::<f32>();
        match frame.kind {
            Kind::Partial => {
                let chunk = start..start + elements / self.partials.len();
                self.partials.iter().map(|sum| bytemuck::cast_slice(&sum[chunk.clone()])).collect()
            }
            Kind::Sum => vec![bytemuck::cast_slice(&self.sum[start..start + elements])],
            _ => vec![self.notes.own()],
        }
    }

    fn owed_by(&self, peer: usize) -> Owed {
        let Progress { partials_taken, sums_taken, .. } = self.progress[peer];
        if !self.notes.is_taken(peer) || partials_taken < self.partials_due(peer, self.me) {
            Owed::Contribution
        } else if sums_taken < self.slices.chunks(peer) {
            Owed::Result
        } else {
            Owed::Nothing
        }
    }

    fn expect(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        if !self.notes.is_taken(peer) {
            let length = self.notes.make_room(peer, frame);
            return frame.must_be(&[self.note_frame(length)]);
        }
        let Progress { partials_taken, sums_taken, .. } = self.progress[peer];
        let mut expected = Vec::with_capacity(2);
        if partials_taken < self.partials_due(peer, self.me) {
            expected.push(self.partial_frame(peer, self.me, partials_taken));
        }
        if sums_taken < self.slices.chunks(peer) {
            expected.push(self.sum_frame(peer, sums_taken));
        }
        frame.must_be(&expected)
    }

    fn room(&mut self, peer: usize, frame: &Frame) -> &mut [u8] {
        let start = frame.start as usize;
        match frame.kind {
            Kind::Partial => {
                let place = self.place(peer, &self.slices.chunk(self.me, self.progress[peer].partials_taken));
                bytemuck::cast_slice_mut(&mut self.inbox[peer][place])
            }
            Kind::Sum => {
                let elements = frame.length as usize / size_of::<f32>();
                bytemuck::cast_slice_mut(&mut self.sum[start..start + elements])
            }
            _ => self.notes.room(peer),
        }
    }

    fn arrived(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        match frame.kind {
            Kind::Partial => self.progress[peer].partials_taken += 1,
            Kind::Sum => self.progress[peer].sums_taken += 1,
            _ => self.notes.take(peer),
        }
        Ok(())
    }
}
