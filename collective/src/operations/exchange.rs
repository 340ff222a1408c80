//! Every rank gets every rank's note.

use crate::{
    error::During,
    group::MAX_NOTE,
    tcp::{
        frame::{Frame, Kind, Unexpected},
        operation::{Operation, Owed},
    },
};

/// The notes of an operation, by rank: given out once to each peer, and taken once from each.
#[derive(Debug)]
pub(crate) struct Notes<'a> {
    me: usize,
    own: &'a [u8],
    given: Vec<bool>,
    taken: Vec<bool>,
    notes: Vec<Vec<u8>>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(me: usize, ranks: usize, own: &'a [u8]) -> Self {
        let mut notes = vec![Vec::new(); ranks];
        notes[me] = own.to_vec();
        Self { me, own, given: vec![false; ranks], taken: vec![false; ranks], notes }
    }

    pub(crate) fn own(&self) -> &'a [u8] {
        self.own
    }

    /// Whether this rank's note was given out for `peer`.
    pub(crate) fn is_given(&self, peer: usize) -> bool {
        self.given[peer]
    }

    pub(crate) fn give(&mut self, peer: usize) {
        self.given[peer] = true;
    }

    /// Whether the note of `peer` has come.
    pub(crate) fn is_taken(&self, peer: usize) -> bool {
        self.taken[peer]
    }

    /// Makes room for a note of `peer` of as many bytes as the frame says, though no more than a note may have. Returns
    /// how many.
    pub(crate) fn make_room(&mut self, peer: usize, frame: &Frame) -> usize {
        let length = frame.length.min(MAX_NOTE as u64) as usize;
        self.notes[peer].resize(length, 0);
        length
    }

    pub(crate) fn room(&mut self, peer: usize) -> &mut [u8] {
        &mut self.notes[peer]
    }

    pub(crate) fn take(&mut self, peer: usize) {
        self.taken[peer] = true;
    }

    pub(crate) fn into_notes(self) -> Vec<Vec<u8>> {
        debug_assert!(self.taken.iter().enumerate().all(|(rank, &taken)| taken || rank == self.me));
        self.notes
    }
}

/// An exchange of notes and nothing else.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    step: u64,
    notes: Notes<'a>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(step: u64, me: usize, ranks: usize, note: &'a [u8]) -> Self {
        Self { step, notes: Notes::new(me, ranks, note) }
    }

    pub(crate) fn into_notes(self) -> Vec<Vec<u8>> {
        self.notes.into_notes()
    }

    fn frame(&self, length: usize) -> Frame {
        Frame { kind: Kind::Exchange, step: self.step, index: 0, start: 0, length: length as u64 }
    }
}

impl Operation for Exchange<'_> {
    fn during(&self) -> During {
        During::Exchange { step: self.step }
    }

    fn next_frame(&mut self, peer: usize) -> Option<Frame> {
        if self.notes.is_given(peer) {
            return None;
        }
        self.notes.give(peer);
        Some(self.frame(self.notes.own().len()))
    }

    fn has_more_for(&self, peer: usize) -> bool {
        !self.notes.is_given(peer)
    }

    fn payload<'a>(&'a self, _peer: usize, _frame: &Frame) -> Vec<&'a [u8]> {
        vec![self.notes.own()]
    }

    fn owed_by(&self, peer: usize) -> Owed {
        if self.notes.is_taken(peer) { Owed::Nothing } else { Owed::Contribution }
    }

    fn expect(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        let length = self.notes.make_room(peer, frame);
        frame.must_be(&[self.frame(length)])
    }

    fn room(&mut self, peer: usize, _frame: &Frame) -> &mut [u8] {
        self.notes.room(peer)
    }

    fn arrived(&mut self, peer: usize, _frame: &Frame) -> Result<(), Unexpected> {
        self.notes.take(peer);
        Ok(())
    }
}
