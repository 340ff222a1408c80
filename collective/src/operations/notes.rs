//! The notes of an operation: a few bytes from every rank to every rank.

use crate::tcp::frame::Frame;

/// Bytes of the longest note.
pub const MAX_NOTE: usize = 1 << 20;

/// The notes of an operation, by rank: sent once to each peer, and received once from each.
#[derive(Debug)]
pub(crate) struct Notes<'a> {
    me: usize,
    own: &'a [u8],
    /// By rank, whether this rank's note was handed to the connection.
    sent: Vec<bool>,
    received: Vec<bool>,
    notes: Vec<Vec<u8>>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(me: usize, ranks: usize, own: &'a [u8]) -> Self {
        let mut notes = vec![Vec::new(); ranks];
        notes[me] = own.to_vec();
        Self { me, own, sent: vec![false; ranks], received: vec![false; ranks], notes }
    }

    pub(crate) fn own(&self) -> &'a [u8] {
        self.own
    }

    /// Whether this rank's note was handed to the connection to `peer`.
    pub(crate) fn is_sent(&self, peer: usize) -> bool {
        self.sent[peer]
    }

    pub(crate) fn set_sent(&mut self, peer: usize) {
        self.sent[peer] = true;
    }

    /// Whether the note of `peer` is there.
    pub(crate) fn is_received(&self, peer: usize) -> bool {
        self.received[peer]
    }

    pub(crate) fn set_received(&mut self, peer: usize) {
        self.received[peer] = true;
    }

    /// Allocates a buffer for the note of `peer`, as long as the frame says but not longer than a note may be. Returns
    /// its length.
    pub(crate) fn allocate(&mut self, peer: usize, frame: &Frame) -> usize {
        let length = frame.length.min(MAX_NOTE as u64) as usize;
        self.notes[peer].resize(length, 0);
        length
    }

    pub(crate) fn buffer(&mut self, peer: usize) -> &mut [u8] {
        &mut self.notes[peer]
    }

    /// All notes, by rank, once the operation is done.
    pub(crate) fn into_notes(self) -> Vec<Vec<u8>> {
        debug_assert!(self.received.iter().enumerate().all(|(rank, &there)| there || rank == self.me));
        self.notes
    }
}
