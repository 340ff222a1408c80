//! The exchange: every rank gets every rank's note, and nothing else travels.

use crate::{
    error::During,
    operations::notes::Notes,
    tcp::{
        frame::{Frame, Kind, Unexpected},
        operation::{Operation, Owed},
    },
};

/// An exchange in progress.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    step: u64,
    notes: Notes<'a>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(step: u64, me: usize, ranks: usize, note: &'a [u8]) -> Self {
        Self { step, notes: Notes::new(me, ranks, note) }
    }

    /// Every rank's note, once the operation is done.
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
        if self.notes.is_sent(peer) {
            return None;
        }
        self.notes.set_sent(peer);
        Some(self.frame(self.notes.own().len()))
    }

    fn has_more_for(&self, peer: usize) -> bool {
        !self.notes.is_sent(peer)
    }

    fn payload<'a>(&'a self, _peer: usize, _frame: &Frame) -> Vec<&'a [u8]> {
        vec![self.notes.own()]
    }

    fn owed_by(&self, peer: usize) -> Owed {
        if self.notes.is_received(peer) { Owed::Nothing } else { Owed::Contribution }
    }

    fn expect(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        let length = self.notes.allocate(peer, frame);
        frame.must_be(&[self.frame(length)])
    }

    fn buffer(&mut self, peer: usize, _frame: &Frame) -> &mut [u8] {
        self.notes.buffer(peer)
    }

    fn received(&mut self, peer: usize, _frame: &Frame) -> Result<(), Unexpected> {
        self.notes.set_received(peer);
        Ok(())
    }
}
