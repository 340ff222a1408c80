//! The digest of a state whose bytes arrive in order over a channel. Verification and import compute it this way, on a
//! blocking thread, while the next bytes are read.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use whimbrel_state::{Hash, Layout};

/// Bytes of the state, in order, and the share of a memory budget that they take.
pub(crate) type DigestInput = (Vec<Bytes>, Option<OwnedSemaphorePermit>);

/// The digest of the state after `step`; `None` if the channel closes before the whole state has arrived. Blocks.
pub(crate) fn digest_received(
    layout: &Layout,
    step: u64,
    mut input: mpsc::Receiver<DigestInput>,
) -> Option<Hash> {
    let (mut parts, mut memory) = (VecDeque::new(), None);
    let digest = whimbrel_state::digest(layout, step, |index, sink| {
        let mut left = layout.range_of(index).len();
        while left > 0 {
            let Some(mut part) = parts.pop_front() else {
                drop(memory.take());
                let (next, its_memory) = input.blocking_recv().ok_or(())?;
                parts.extend(next);
                memory = its_memory;
                continue;
            };
            let now: Bytes = part.split_to(left.min(part.len()));
            left -= now.len();
            sink(&now);
            if !part.is_empty() {
                parts.push_front(part);
            }
        }
        Ok::<_, ()>(())
    });
    digest.ok()
}
