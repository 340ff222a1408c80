//! The faults that the proxy can inject between a program and its store.

use super::operation::{Seen, Verb};

/// A fault of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The request does not reach the server; the answer is 503.
    Unavailable,
    /// The request does not reach the server; the answer is 429.
    Throttled,
    /// The connection ends before the request reaches the server.
    CutBefore,
    /// The connection ends, but the request is still in flight: it reaches the server when the test calls
    /// [`FaultProxy::deliver_late`](super::FaultProxy::deliver_late), long after the program gave it up.
    Late,
    /// The server executes the request, and the connection ends before the answer.
    AnswerLost,
    /// The server executes the request, and the connection ends in the middle of the answer's body.
    CutInAnswer,
    /// The server executes the request, and the answer has only half of the body, with a matching length.
    TruncatedAnswer,
    /// One bit of the answer's body is flipped.
    FlippedAnswer,
    /// One bit of the request's body is flipped before it reaches the server.
    FlippedRequest,
    /// A listing is the answer to the previous listing of the same prefix, or empty if there was none.
    StaleList,
    /// A listing is empty.
    EmptyList,
    /// Part of the answer's body arrives slowly, then nothing more, and the connection stays open.
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

    /// Whether the fault makes a difference to an operation that went as `seen` without faults. An answer without a
    /// body, for example, cannot be truncated.
    pub fn concerns(self, seen: &Seen) -> bool {
        match self {
            Self::Unavailable | Self::Throttled | Self::CutBefore | Self::AnswerLost | Self::SlowDrip => true,
            // A read that arrives late changes nothing.
            Self::Late => matches!(seen.operation.verb, Verb::Put | Verb::Delete | Verb::DeleteMany),
            Self::CutInAnswer | Self::TruncatedAnswer => seen.answered > 1,
            // The XML of a listing is not flipped: the two faults of listings leave entries out and keep the XML valid.
            Self::FlippedAnswer => seen.operation.verb == Verb::Get && seen.answered > 0,
            Self::FlippedRequest => seen.operation.verb == Verb::Put && seen.sent > 0,
            Self::StaleList | Self::EmptyList => seen.operation.verb == Verb::List,
        }
    }
}
