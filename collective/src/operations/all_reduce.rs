//! The all-reduce of a step: a direct reduce-scatter and a direct all-gather, in one.
//!
//! Rank j finishes slice j of the gradient. Every rank sends it, chunk by chunk, that slice of each of its partial
//! sums. When a chunk of every rank's partial sums is there, rank j adds them in the fixed order
//! ([`AllReduce::sum_next_chunk`]) and sends the result to every rank, while later chunks are still travelling. Between
//! two peers, frames of one kind come in the order of their chunks; the order between kinds does not matter.
//!
//! With W workers and one partial sum each, a worker sends and receives 2(W−1)/W of the gradient's bytes, as with a
//! ring, but over two hops instead of 2(W−1).

use std::ops::Range;

use crate::{
    accumulator::{Accumulator, Reduction},
    error::During,
    operations::notes::Notes,
    schedule::Schedule,
    tcp::{
        frame::{Frame, Kind, Unexpected},
        operation::{Operation, Owed},
    },
};

/// An all-reduce in progress.
pub(crate) struct AllReduce<'a> {
    step: u64,
    schedule: &'a Schedule,
    partials: Vec<&'a [f32]>,
    notes: Notes<'a>,
    /// By rank.
    progress: Vec<Progress>,
    /// By rank, its partial sums of this rank's slice: for one chunk after another, each sum's part of it.
    inbox: &'a mut [Vec<f32>],
    sum: &'a mut [f32],
    /// Chunks of this rank's slice that are finished in `sum`.
    finished: usize,
}

/// How many chunks were handed to the connection to a peer, and how many were received from it.
#[derive(Clone, Copy, Default)]
struct Progress {
    partials_sent: usize,
    sums_sent: usize,
    partials_received: usize,
    sums_received: usize,
}

impl<'a> AllReduce<'a> {
    /// The all-reduce of step `step`. `inbox` has an entry per rank, as long as [`Schedule::inbox_of`] says.
    pub(crate) fn new(
        schedule: &'a Schedule,
        step: u64,
        partials: &'a Accumulator,
        note: &'a [u8],
        inbox: &'a mut [Vec<f32>],
        sum: &'a mut [f32],
    ) -> Self {
        let ranks = schedule.slices.ranks;
        Self {
            step,
            schedule,
            partials: partials.partials().map(|(_, sum)| sum).collect(),
            notes: Notes::new(schedule.me, ranks, note),
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
        if self.schedule.parts[from] == 0 { 0 } else { self.schedule.slices.chunks(to) }
    }

    fn note_frame(&self, length: usize) -> Frame {
        // Ranks that sum in another way, or sum other gradients, find out before they send any.
        let index = match self.schedule.reduction {
            Reduction::Exact => 1,
            Reduction::F32 => 2,
        };
        let start = self.schedule.slices.elements as u64;
        Frame { kind: Kind::Note, step: self.step, index, start, length: length as u64 }
    }

    fn partial_frame(&self, from: usize, to: usize, chunk: usize) -> Frame {
        let (parts, chunk) = (self.schedule.parts[from], self.schedule.slices.chunk(to, chunk));
        let length = (parts * chunk.len() * size_of::<f32>()) as u64;
        Frame { kind: Kind::Partial, step: self.step, index: parts as u32, start: chunk.start as u64, length }
    }

    fn sum_frame(&self, from: usize, chunk: usize) -> Frame {
        let chunk = self.schedule.slices.chunk(from, chunk);
        let length = (chunk.len() * size_of::<f32>()) as u64;
        Frame { kind: Kind::Sum, step: self.step, index: 0, start: chunk.start as u64, length }
    }

    /// Where a chunk of this rank's slice is in the inbox of `rank`: the chunk of each of its sums, one after another.
    fn inbox_range(&self, rank: usize, chunk: &Range<usize>) -> Range<usize> {
        let start =
            self.schedule.parts[rank] * (chunk.start - self.schedule.slices.slice(self.schedule.me).start);
        start..start + self.schedule.parts[rank] * chunk.len()
    }

    /// Adds up the next chunk of this rank's slice over all ranks, if every rank's partial sums of it are there. This
    /// is where a step's gradient is summed across workers.
    fn sum_next_chunk(&mut self) -> bool {
        let Schedule { me, slices, parts, order, .. } = self.schedule;
        let all_there = (0..slices.ranks)
            .filter(|rank| rank != me)
            .all(|rank| parts[rank] == 0 || self.progress[rank].partials_received > self.finished);
        if self.finished == slices.chunks(*me) || !all_there {
            return false;
        }
        let chunk = slices.chunk(*me, self.finished);
        let mut sums: Vec<&[f32]> = Vec::with_capacity(parts.iter().sum());
        for rank in 0..slices.ranks {
            if rank == *me {
                sums.extend(self.partials.iter().map(|sum| &sum[chunk.clone()]));
            } else {
                let range = self.inbox_range(rank, &chunk);
                sums.extend(self.inbox[rank][range].chunks_exact(chunk.len()));
            }
        }
        order.run(&sums, &mut self.sum[chunk]);
        self.finished += 1;
        true
    }
}

impl Operation for AllReduce<'_> {
    fn during(&self) -> During {
        During::AllReduce { step: self.step }
    }

    fn compute(&mut self) -> bool {
        self.sum_next_chunk()
    }

    fn next_frame(&mut self, peer: usize) -> Option<Frame> {
        if !self.notes.is_sent(peer) {
            self.notes.set_sent(peer);
            return Some(self.note_frame(self.notes.own().len()));
        }
        let Progress { partials_sent, sums_sent, .. } = self.progress[peer];
        if sums_sent < self.finished {
            // Finished sums first: they are still in the cache, and the peer has nothing to compute with them.
            self.progress[peer].sums_sent += 1;
            return Some(self.sum_frame(self.schedule.me, sums_sent));
        }
        if partials_sent < self.partials_due(self.schedule.me, peer) {
            self.progress[peer].partials_sent += 1;
            return Some(self.partial_frame(self.schedule.me, peer, partials_sent));
        }
        None
    }

    fn has_more_for(&self, peer: usize) -> bool {
        let Progress { partials_sent, sums_sent, .. } = self.progress[peer];
        !self.notes.is_sent(peer)
            || sums_sent < self.schedule.slices.chunks(self.schedule.me)
            || partials_sent < self.partials_due(self.schedule.me, peer)
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
        let Progress { partials_received, sums_received, .. } = self.progress[peer];
        if !self.notes.is_received(peer) || partials_received < self.partials_due(peer, self.schedule.me) {
            Owed::Contribution
        } else if sums_received < self.schedule.slices.chunks(peer) {
            Owed::Result
        } else {
            Owed::Nothing
        }
    }

    fn expect(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        if !self.notes.is_received(peer) {
            let length = self.notes.allocate(peer, frame);
            return frame.must_be(&[self.note_frame(length)]);
        }
        let Progress { partials_received, sums_received, .. } = self.progress[peer];
        let mut expected = Vec::with_capacity(2);
        if partials_received < self.partials_due(peer, self.schedule.me) {
            expected.push(self.partial_frame(peer, self.schedule.me, partials_received));
        }
        if sums_received < self.schedule.slices.chunks(peer) {
            expected.push(self.sum_frame(peer, sums_received));
        }
        frame.must_be(&expected)
    }

    fn buffer(&mut self, peer: usize, frame: &Frame) -> &mut [u8] {
        let start = frame.start as usize;
        match frame.kind {
            Kind::Partial => {
                let range = self.inbox_range(
                    peer,
                    &self.schedule.slices.chunk(self.schedule.me, self.progress[peer].partials_received),
                );
                bytemuck::cast_slice_mut(&mut self.inbox[peer][range])
            }
            Kind::Sum => {
                let elements = frame.length as usize / size_of::<f32>();
                bytemuck::cast_slice_mut(&mut self.sum[start..start + elements])
            }
            _ => self.notes.buffer(peer),
        }
    }

    fn received(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        match frame.kind {
            Kind::Partial => self.progress[peer].partials_received += 1,
            Kind::Sum => self.progress[peer].sums_received += 1,
            _ => self.notes.set_received(peer),
        }
        Ok(())
    }
}
