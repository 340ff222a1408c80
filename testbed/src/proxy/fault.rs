//! What can go wrong between a program and its store.

use super::operation::{Seen, Verb};

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// It is not carried out: 503.
    Unavailable,
    /// It is not carried out: 429.
    Throttled,
    /// The connection is cut before the request reaches the server.
    CutBefore,
    /// The connection is cut, and the request is on its way all the same: it reaches the server when the test says so
    /// ([`FaultProxy::deliver_late`](super::FaultProxy::deliver_late)), long after the program has given it up.
    Late,
    /// It is carried out, and the connection is cut before the answer.
    AnswerLost,
    /// It is carried out, and the connection is cut in the middle of the answer's body.
    CutInAnswer,
    /// It is carried out, and the answer ends early without saying so: half of it, under a length that fits.
    TruncatedAnswer,
    /// One bit of the answer's body is another.
    FlippedAnswer,
    /// One bit of the request's body is another when it reaches the server.
    FlippedRequest,
    /// A listing is the one that the same request got the last time, or empty if it is the first.
    StaleList,
    /// A listing is empty.
    EmptyList,
    /// Half of the answer's body trickles in, byte by byte, and then nothing more comes, nor is the connection closed.
    SlowDrip,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Unavailable,
        Self::Throttled,
        Self::CutBefore,
        Self::Late,
        Self::AnswerLost,
        Self::CutInAnswer,
        Self::TruncatedAnswer,
        Self::FlippedAnswer,
        Self::FlippedRequest,
        Self::StaleList,
        Self::EmptyList,
        Self::SlowDrip,
    ];

    /// Whether it makes a difference to an operation that went as `seen` when nothing was wrong: nothing can be cut out
    /// of an answer without a body.
    pub fn concerns(self, seen: &Seen) -> bool {
        // The body of a listing's answer is text for the client's parser, of no particular dialect here; what it may
        // lack without being malformed is what the two faults of listings are for.
        let lists = seen.operation.verb == Verb::List;
        match self {
            Self::Unavailable | Self::Throttled | Self::CutBefore | Self::AnswerLost | Self::SlowDrip => true,
            // What only looks does no harm late.
            Self::Late => matches!(seen.operation.verb, Verb::Put | Verb::Delete | Verb::DeleteMany),
            Self::CutInAnswer | Self::TruncatedAnswer => seen.answered > 1,
            Self::FlippedAnswer => seen.operation.verb == Verb::Get && seen.answered > 0,
            Self::FlippedRequest => seen.operation.verb == Verb::Put && seen.sent > 0,
            Self::StaleList | Self::EmptyList => lists,
        }
    }

    /// Whether it may hold from an operation on for as long as the outage lasts.
    pub fn lasts(self) -> bool {
        matches!(self, Self::Unavailable | Self::Throttled | Self::CutBefore | Self::AnswerLost)
    }
}
