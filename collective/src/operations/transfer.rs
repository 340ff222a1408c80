//! The state transfer: from a member that holds the state to members that lack it.
//!
//! An offer comes first, the lengths of all parts, so that a state that does not fit is refused before any of it is
//! written. Then come the parts, in frames that never cross from one part into the next.

use std::ops::Range;

use crate::{
    error::During,
    tcp::{
        frame::{Frame, Kind, Unexpected},
        operation::{Operation, Owed},
    },
};

/// The most parts a state may come in.
pub(crate) const MAX_PARTS: usize = 1 << 20;

/// Bytes of a frame.
const CHUNK: usize = 1 << 20;

/// A state being sent.
pub(crate) struct SendState<'a> {
    step: u64,
    parts: &'a [&'a [u8]],
    lengths: Lengths,
    /// By rank, what is sent to it next; `None` for ranks that get nothing.
    cursors: Vec<Option<Cursor>>,
}

/// A state being received.
pub(crate) struct ReceiveState<'a, 'b> {
    step: u64,
    from: usize,
    into: &'a mut [&'b mut [u8]],
    lengths: Lengths,
    offer: Vec<u64>,
    cursor: Cursor,
}

/// The lengths of the parts in bytes.
struct Lengths(Vec<u64>);

/// The frame that comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cursor {
    Offer,
    /// The frame that starts with this byte of this part. Past the last part there is none.
    At {
        part: usize,
        byte: usize,
    },
}

impl Lengths {
    fn offer(&self, step: u64) -> Frame {
        let length = size_of_val(self.0.as_slice()) as u64;
        let total = self.0.iter().sum();
        Frame { kind: Kind::Offer, step, index: self.0.len() as u32, start: total, length }
    }

    /// The cursor, moved on over parts without bytes.
    fn skip_empty(&self, mut part: usize, mut byte: usize) -> Cursor {
        while self.0.get(part).is_some_and(|&length| byte as u64 >= length) {
            (part, byte) = (part + 1, 0);
        }
        Cursor::At { part, byte }
    }

    /// The frame at the cursor, if there is one.
    fn frame(&self, step: u64, cursor: Cursor) -> Option<Frame> {
        let Cursor::At { part, byte } = cursor else { return Some(self.offer(step)) };
        let length = (self.0.get(part)? - byte as u64).min(CHUNK as u64);
        Some(Frame { kind: Kind::State, step, index: part as u32, start: byte as u64, length })
    }

    /// The cursor after the frame at it.
    fn after(&self, frame: &Frame) -> Cursor {
        match frame.kind {
            Kind::Offer => self.skip_empty(0, 0),
            _ => self.skip_empty(frame.index as usize, (frame.start + frame.length) as usize),
        }
    }
}

fn bytes_of(frame: &Frame) -> Range<usize> {
    frame.start as usize..(frame.start + frame.length) as usize
}

impl<'a> SendState<'a> {
    pub(crate) fn new(step: u64, ranks: usize, to: &[usize], parts: &'a [&'a [u8]]) -> Self {
        let lengths = Lengths(parts.iter().map(|part| part.len() as u64).collect());
        let cursors = (0..ranks).map(|rank| to.contains(&rank).then_some(Cursor::Offer)).collect();
        Self { step, parts, lengths, cursors }
    }
}

impl Operation for SendState<'_> {
    fn during(&self) -> During {
        During::SendState
    }

    fn next_frame(&mut self, peer: usize) -> Option<Frame> {
        let cursor = self.cursors[peer].as_mut()?;
        let frame = self.lengths.frame(self.step, *cursor)?;
        *cursor = self.lengths.after(&frame);
        Some(frame)
    }

    fn has_more_for(&self, peer: usize) -> bool {
        self.cursors[peer].is_some_and(|cursor| self.lengths.frame(self.step, cursor).is_some())
    }

    fn payload<'a>(&'a self, _peer: usize, frame: &Frame) -> Vec<&'a [u8]> {
        match frame.kind {
            Kind::Offer => vec![bytemuck::cast_slice(&self.lengths.0)],
            _ => vec![&self.parts[frame.index as usize][bytes_of(frame)]],
        }
    }

    fn owed_by(&self, _peer: usize) -> Owed {
        Owed::Nothing
    }

    fn expect(&mut self, _peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        frame.must_be(&[])
    }

    fn buffer(&mut self, _peer: usize, _frame: &Frame) -> &mut [u8] {
        &mut []
    }

    fn received(&mut self, _peer: usize, _frame: &Frame) -> Result<(), Unexpected> {
        Ok(())
    }
}

impl<'a, 'b> ReceiveState<'a, 'b> {
    pub(crate) fn new(step: u64, from: usize, into: &'a mut [&'b mut [u8]]) -> Self {
        let lengths = Lengths(into.iter().map(|part| part.len() as u64).collect());
        let offer = vec![0; into.len()];
        Self { step, from, into, lengths, offer, cursor: Cursor::Offer }
    }
}

impl Operation for ReceiveState<'_, '_> {
    fn during(&self) -> During {
        During::ReceiveState
    }

    fn next_frame(&mut self, _peer: usize) -> Option<Frame> {
        None
    }

    fn has_more_for(&self, _peer: usize) -> bool {
        false
    }

    fn payload<'a>(&'a self, _peer: usize, _frame: &Frame) -> Vec<&'a [u8]> {
        Vec::new()
    }

    fn owed_by(&self, peer: usize) -> Owed {
        let more = peer == self.from && self.lengths.frame(self.step, self.cursor).is_some();
        if more { Owed::Contribution } else { Owed::Nothing }
    }

    fn expect(&mut self, _peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        // An offer of as many parts but another total is read, so that the error can name the part that differs.
        let mut expected = self.lengths.frame(self.step, self.cursor);
        if let Some(expected) = expected.as_mut().filter(|expected| expected.kind == Kind::Offer) {
            if frame.kind == Kind::Offer && frame.index != expected.index {
                return Err(Unexpected {
                    expected: format!("a state of {} parts, {} bytes", expected.index, expected.start),
                    found: format!("a state of {} parts, {} bytes", frame.index, frame.start),
                });
            }
            expected.start = frame.start;
        }
        frame.must_be(expected.as_slice())
    }

    fn buffer(&mut self, _peer: usize, frame: &Frame) -> &mut [u8] {
        match frame.kind {
            Kind::Offer => bytemuck::cast_slice_mut(&mut self.offer),
            _ => &mut self.into[frame.index as usize][bytes_of(frame)],
        }
    }

    fn received(&mut self, _peer: usize, frame: &Frame) -> Result<(), Unexpected> {
        if frame.kind == Kind::Offer {
            let mut parts = self.lengths.0.iter().zip(&self.offer).enumerate();
            if let Some((part, (here, there))) = parts.find(|(_, (here, there))| here != there) {
                return Err(Unexpected {
                    expected: format!("a state whose part {part} has {here} bytes"),
                    found: format!("one whose part {part} has {there}"),
                });
            }
        }
        self.cursor = self.lengths.after(frame);
        Ok(())
    }
}
