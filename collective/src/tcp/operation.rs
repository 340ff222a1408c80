//! What the poll loop asks of an operation. [`Mesh::drive`](super::mesh::Mesh::drive) runs one to its end.

use crate::{
    error::During,
    tcp::frame::{Frame, Unexpected},
};

/// What a peer still has to send before the operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owed {
    /// Nothing. The peer is not read from any more: what it sends next belongs to the next operation.
    Nothing,
    /// Data that the peer can only send after others have sent theirs.
    Result,
    /// Data that the peer has by itself.
    Contribution,
}

/// An operation of a group: which frames go to which peer, and where received frames belong. The frames to and from one
/// peer are ordered; frames of different peers are not.
pub(crate) trait Operation {
    /// Its name in errors.
    fn during(&self) -> During;

    /// Does one piece of computing, if one is due. Returns whether it did.
    fn compute(&mut self) -> bool {
        false
    }

    /// The next frame for `peer`, if it can be sent now. The caller sends it whole before it asks again.
    fn next_frame(&mut self, peer: usize) -> Option<Frame>;

    /// Whether there are frames for `peer` that [`next_frame`](Self::next_frame) has not returned, now or later.
    fn has_more_for(&self, peer: usize) -> bool;

    /// The payload of a frame that [`next_frame`](Self::next_frame) returned, in as many slices as it consists of.
    fn payload<'a>(&'a self, peer: usize, frame: &Frame) -> Vec<&'a [u8]>;

    /// What `peer` still has to send.
    fn owed_by(&self, peer: usize) -> Owed;

    /// Checks the header of a frame from `peer`.
    fn expect(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected>;

    /// The memory that the payload of a frame from `peer` is read into, exactly as long as the payload.
    fn buffer(&mut self, peer: usize, frame: &Frame) -> &mut [u8];

    /// Records that a frame from `peer` is complete.
    fn received(&mut self, peer: usize, frame: &Frame) -> Result<(), Unexpected>;
}
