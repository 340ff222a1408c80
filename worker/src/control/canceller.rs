//! Ends the waits of the training thread from another thread.

use std::sync::Weak;

use tokio::sync::watch;
use whimbrel_collective::Interrupter;
use whimbrel_member::End;

use crate::control::listener::Inbox;

/// Ends whatever a session waits in, from any thread: a program that catches a signal uses it to end at once.
#[derive(Clone, Debug)]
pub struct Canceller {
    /// The listener owns the sender: when it ends, nothing waits any more.
    pub(crate) inbox: Weak<watch::Sender<Inbox>>,
    pub(crate) interrupter: Interrupter,
}

impl Canceller {
    /// Ends the worker as if its coordinator had told it to leave: the wait ends at once, and
    /// [`Session::next`](crate::Session::next) returns `None` from now on. Nothing is sent to the coordinator.
    pub fn cancel(&self, reason: &str) {
        let Some(inbox) = self.inbox.upgrade() else { return };
        inbox.send_modify(|inbox| inbox.requests.end(End::Leave { reason: reason.to_owned() }));
        self.interrupter.interrupt(u64::MAX);
    }
}
