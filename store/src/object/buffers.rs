//! Buffers for blocks that are read, reused.
//!
//! The HTTP client delivers a body in small buffers of its own. If these were kept until a block is complete, the client
//! would allocate fresh memory for each, and touching fresh memory costs as much as hashing it. Copying each at once into
//! a reused buffer halves the processor time of a read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use whimbrel_state::blocks::BLOCK;

/// Larger buffers hold a whole pack of the first manifest format, and are not kept.
const LARGEST: usize = BLOCK as usize;

/// A pool of buffers. Buffers of up to a block are kept while any is in use; when none is, one is kept. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Pool>>);

#[derive(Debug, Default)]
struct Pool {
    free: Vec<Vec<u8>>,
    in_use: usize,
}

/// A buffer that returns to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Never shortened: memory that was initialized once need not be initialized again.
    memory: Vec<u8>,
    used: usize,
    pool: Buffers,
}

impl Buffers {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        // The list stays valid if a thread panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `bytes` bytes with arbitrary content.
    pub(crate) fn take(&self, bytes: usize) -> Buffer {
        let mut pool = self.pool();
        pool.in_use += 1;
        let pooled = if bytes <= LARGEST { pool.free.pop() } else { None };
        drop(pool);
        let memory = match pooled {
            Some(memory) if memory.len() >= bytes => memory,
            // A shorter one is replaced: growing it would copy its content for nothing.
            Some(_) | None => vec![0; bytes],
        };
        Buffer { memory, used: bytes, pool: self.clone() }
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
        let mut pool = self.pool.pool();
        pool.in_use -= 1;
        if self.memory.len() <= LARGEST {
            pool.free.push(std::mem::take(&mut self.memory));
        }
        if pool.in_use == 0 {
            // One stays for readers that read block by block.
            pool.free.truncate(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_reused_and_all_but_one_are_freed_with_the_last() {
        let buffers = Buffers::default();
        let (mut first, second) = (buffers.take(100), buffers.take(50));
        first.as_mut()[99] = 7;
        let address = first.as_ref().as_ptr();
        drop(first);
        let again = buffers.take(70);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref().len()), (address, 70));
        drop(again);
        assert_eq!(buffers.take(100).as_ref()[99], 7, "it is not cleared");
        assert_eq!(buffers.pool().free.len(), 1);
        drop(second);
        let pool = buffers.pool();
        assert_eq!((pool.free.len(), pool.in_use), (1, 0));
    }

    #[test]
    fn a_buffer_of_more_than_a_block_is_not_kept() {
        let buffers = Buffers::default();
        let (large, small) = (buffers.take(LARGEST + 1), buffers.take(1));
        drop(large);
        assert_eq!(buffers.pool().free.len(), 0);
        drop(small);
        assert_eq!(buffers.take(LARGEST + 1).as_ref().len(), LARGEST + 1);
        assert_eq!(buffers.pool().free.len(), 1);
    }
}
