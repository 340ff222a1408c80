//! What the poll loop asks of an operation.

use crate::{
    error::During,
    tcp::frame::{Frame, Unexpected},
};

/// What a peer still has to send before the operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owed {
    /// Nothing: it is not read from any more, since what comes belongs to the next operation.
    Nothing,
    /// What it can only send when others have sent theirs.
    Result,
    /// What it has by itself.
    Contribution,
}

/// An operation of a group: which frames go to whom and where those that come belong. The frames to and from one peer
/// have an order; what the order is between peers does not matter.
pub(crate) trait Operation {
    /// Its name in errors.
    fn during(&self) -> During;

    /// Does one piece of computing, if there is one to do.
    fn work(&mut self) -> bool {
        false
    }

    /// The next frame for `peer`, if it can be sent now; the caller sends it whole before it asks again.
    fn next_frame(&mut self, peer: usize) -> Option<Frame>;

    /// Whether there are frames for `peer` that [`next_frame`](Self::next_frame) has not given out, now or later.
    fn has_more_for(&self, peer: usize) -> bool;

    /// The payload of a frame that was given out, in as many slices as it lies in.
    fn payload<'a>(&'a self, peer: usize, frame: &Frame) -> Vec<&'a [u8]>;

    /// What `peer` still has to send.
    fn owed_by(&self, peer: usize) -> Owed;

    /// Checks the header of a frame from `peer`.
    fn expect(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected>;

    /// Where the payload of a frame from `peer` belongs, exactly as long as the payload.
    fn room(&mut self, peer: usize, frame: &Frame) -> &mut [u8];

    /// Takes note that a frame from `peer` is complete.
    fn arrived(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected>;
}
