//! Frames: every payload between two peers is preceded by a header that says what it is.
//!
//! A header is eight little-endian words of 64 bits: mark and kind, run, epoch, generation, step, source and index,
//! start, length.

use std::fmt;

use whimbrel_plan::{Generation, RunId};

/// Bytes of a header.
pub(crate) const HEADER: usize = 64;

/// The first half of the first word of every frame.
const MARK: u64 = u32::from_le_bytes(*b"WHI1") as u64;

/// What a frame carries, and what its index, start and length mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A note that opens an all-reduce. Index: how gradients are summed. Start: elements of the gradient.
    Note = 1,
    /// A note by itself.
    Exchange = 2,
    /// One chunk of every partial sum of the source, for the rank that finishes it. Index: how many partial sums.
    /// Start: the chunk's first element.
    Partial = 3,
    /// One chunk of the finished sum. Start: the chunk's first element.
    Sum = 4,
    /// What opens a transfer: the lengths of the parts. Index: how many parts. Start: bytes of all parts.
    Offer = 5,
    /// Bytes of a part. Index: the part. Start: the first byte.
    State = 6,
    /// The source leaves the group. Index: one more than the rank it blames, or 0.
    Leave = 7,
}

/// The content of a header, without the [`Stamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) step: u64,
    pub(crate) index: u32,
    pub(crate) start: u64,
    /// Bytes of payload.
    pub(crate) length: u64,
}

/// The run, epoch and generation of a frame, and the rank that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u64,
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    pub(crate) source: u32,
}

/// Bytes that were not expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unexpected {
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// The run's name, as headers hold it.
pub(crate) fn run_hash(run: &RunId) -> u64 {
    let words: [u64; 4] = bytemuck::cast(*blake3::hash(run.as_str().as_bytes()).as_bytes());
    u64::from_le(words[0])
}

impl Stamp {
    pub(crate) fn new(generation: &Generation, source: usize) -> Self {
        Self {
            run: run_hash(&generation.run),
            epoch: generation.epoch,
            generation: generation.number,
            source: source as u32,
        }
    }

    /// The header of `frame` from this source.
    pub(crate) fn encode(self, frame: &Frame) -> [u8; HEADER] {
        let words: [u64; 8] = [
            MARK << 32 | frame.kind as u64,
            self.run,
            self.epoch,
            self.generation,
            frame.step,
            u64::from(self.source) << 32 | u64::from(frame.index),
            frame.start,
            frame.length,
        ];
        bytemuck::cast(words.map(u64::to_le))
    }

    /// Reads a header that must bear this stamp.
    pub(crate) fn decode(self, header: [u8; HEADER]) -> Result<Frame, Unexpected> {
        let words: [u64; 8] = bytemuck::cast(header);
        let [mark_and_kind, run, epoch, generation, step, source_and_index, start, length] =
            words.map(u64::from_le);
        let (mark, kind) = (mark_and_kind >> 32, Kind::from_code(mark_and_kind & 0xffff_ffff));
        let (true, Some(kind)) = (mark == MARK, kind) else {
            let found = format!("bytes that are no frame: {:02x?}", &header[..8]);
            return Err(Unexpected { expected: format!("a frame of {self}"), found });
        };
        let frame = Frame { kind, step, index: source_and_index as u32, start, length };
        let stamp = Self { run, epoch, generation, source: (source_and_index >> 32) as u32 };
        if stamp != self {
            return Err(Unexpected {
                expected: format!("a frame of {self}"),
                found: format!("{frame} of {stamp}"),
            });
        }
        Ok(frame)
    }
}

impl Kind {
    fn from_code(code: u64) -> Option<Self> {
        let all =
            [Self::Note, Self::Exchange, Self::Partial, Self::Sum, Self::Offer, Self::State, Self::Leave];
        all.into_iter().find(|&kind| kind as u64 == code)
    }
}

impl Frame {
    /// Fails unless this is one of the expected frames.
    pub(crate) fn must_be(&self, expected: &[Self]) -> Result<(), Unexpected> {
        if expected.contains(self) {
            return Ok(());
        }
        let expected: Vec<String> = expected.iter().map(Self::to_string).collect();
        let expected = if expected.is_empty() { "nothing".to_owned() } else { expected.join(", or ") };
        Err(Unexpected { expected, found: self.to_string() })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, epoch, generation, source } = self;
        write!(f, "rank {source} in generation {generation} of epoch {epoch} of run {run:016x}")
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, step, index, start, length } = self;
        write!(f, "{kind:?} {index} from {start} on, {length} bytes, of step {step}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 1, epoch: 2, generation: 3, source: 4 };
    const FRAME: Frame = Frame { kind: Kind::Sum, step: 5, index: 6, start: 7, length: 8 };

    #[test]
    fn a_header_comes_back_and_any_other_stamp_is_refused() {
        let header = STAMP.encode(&FRAME);
        assert_eq!(STAMP.decode(header), Ok(FRAME));
        for other in [
            Stamp { run: 9, ..STAMP },
            Stamp { epoch: 9, ..STAMP },
            Stamp { generation: 9, ..STAMP },
            Stamp { source: 9, ..STAMP },
        ] {
            let refused = other.decode(header).unwrap_err();
            assert!(refused.found.contains("Sum 6 from 7 on"), "{refused:?}");
        }
    }

    #[test]
    fn garbage_is_shown() {
        let mut header = STAMP.encode(&FRAME);
        header[..8].copy_from_slice(b"GET / HT");
        assert!(STAMP.decode(header).unwrap_err().found.contains("47, 45, 54"));
        let mut header = STAMP.encode(&FRAME);
        header[0] = 200;
        assert!(STAMP.decode(header).is_err());
    }
}
