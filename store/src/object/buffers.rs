//! Memory for blocks, used again and again.
//!
//! What comes over a socket comes in buffers of the client's; kept until a block is whole, each would be memory written
//! for the first time, which costs as much as hashing it. Copied out at once, the client uses its own again, and so do
//! we: half the processor time of a read goes away with that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use whimbrel_state::blocks::BLOCK;

/// What is larger is a whole pack of the first format's, and is not kept.
const LARGEST: usize = BLOCK as usize;

/// Buffers of up to a block that are used again as long as any is in use; when none is, one is kept. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    free: Vec<Vec<u8>>,
    in_use: usize,
}

/// Memory that goes back where it came from.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// As long as it ever was: what was written once need not be written again to be used.
    memory: Vec<u8>,
    used: usize,
    home: Buffers,
}

impl Buffers {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Whoever panicked while it held this left a list that is as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `bytes` bytes, whatever they are.
    pub(crate) fn take(&self, bytes: usize) -> Buffer {
        let mut shelf = self.shelf();
        shelf.in_use += 1;
        let on_shelf = if bytes <= LARGEST { shelf.free.pop() } else { None };
        drop(shelf);
        let memory = match on_shelf {
            Some(memory) if memory.len() >= bytes => memory,
            // Nothing of a shorter one is worth being carried over.
            Some(_) | None => vec![0; bytes],
        };
        Buffer { memory, used: bytes, home: self.clone() }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.used]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut shelf = self.home.shelf();
        shelf.in_use -= 1;
        if self.memory.len() <= LARGEST {
            shelf.free.push(std::mem::take(&mut self.memory));
        }
        if shelf.in_use == 0 {
            // One stays, for who reads block by block.
            shelf.free.truncate(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again_and_let_go_with_the_last() {
        let buffers = Buffers::default();
        let (mut first, second) = (buffers.take(100), buffers.take(50));
        first.as_mut()[99] = 7;
        let place = first.as_ref().as_ptr();
        drop(first);
        let again = buffers.take(70);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref().len()), (place, 70));
        drop(again);
        assert_eq!(buffers.take(100).as_ref()[99], 7, "not even cleared");
        assert_eq!(buffers.shelf().free.len(), 1);
        drop(second);
        let shelf = buffers.shelf();
        assert_eq!((shelf.free.len(), shelf.in_use), (1, 0));
    }

    #[test]
    fn memory_for_more_than_a_block_is_not_kept() {
        let buffers = Buffers::default();
        let (large, small) = (buffers.take(LARGEST + 1), buffers.take(1));
        drop(large);
        assert_eq!(buffers.shelf().free.len(), 0);
        drop(small);
        assert_eq!(buffers.take(LARGEST + 1).as_ref().len(), LARGEST + 1);
        assert_eq!(buffers.shelf().free.len(), 1);
    }
}
