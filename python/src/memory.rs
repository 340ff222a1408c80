//! Access to the memory of tensors that Python owns: all unsafe code of this crate.
//!
//! Python passes a tensor's address and size. Python's own code in this package (`whimbrel/_memory.py`) is the only
//! caller, and holds to these rules:
//!
//! 1. the tensor is contiguous and in host memory, and spans the bytes that are passed;
//! 2. Python keeps the tensor alive and does not resize it until the call returns, and for the state until it is asked
//!    for its tensors again;
//! 3. meanwhile no other thread of the program uses it: the training thread waits in the call.

use std::{marker::PhantomData, slice};

use pyo3::{exceptions::PyValueError, prelude::*};

/// The memory of a tensor that Python owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    address: usize,
    bytes: usize,
    /// For how long Python keeps it.
    owner: PhantomData<&'a mut [u8]>,
}

impl Region<'_> {
    /// A region by its address and size in bytes.
    pub(crate) fn new(address: usize, bytes: usize) -> PyResult<Self> {
        let fits = isize::try_from(bytes).is_ok() && address.checked_add(bytes).is_some();
        if !fits || (address == 0 && bytes > 0) {
            return Err(PyValueError::new_err(format!(
                "{bytes} bytes at {address:#x} are no tensor's memory"
            )));
        }
        Ok(Self { address, bytes, owner: PhantomData })
    }
}

impl<'a> Region<'a> {
    /// The bytes.
    pub(crate) fn bytes(self) -> &'a mut [u8] {
        if self.bytes == 0 {
            return &mut [];
        }
        // SAFETY: the region is not null and does not wrap around (`new`). Python's side holds to the rules above, so
        // the memory is there, and no other code uses it for `'a`. Every byte is a valid `u8`. Where there is
        // more than one, `overlapping` has found none.
        unsafe { slice::from_raw_parts_mut(self.address as *mut u8, self.bytes) }
    }

    /// The elements of a tensor of `f32`.
    pub(crate) fn floats(self) -> PyResult<&'a mut [f32]> {
        if self.bytes == 0 {
            return Ok(&mut []);
        }
        if !self.address.is_multiple_of(align_of::<f32>()) || !self.bytes.is_multiple_of(size_of::<f32>()) {
            return Err(PyValueError::new_err("a tensor of f32 has an odd address or size"));
        }
        // SAFETY: as for `bytes`; the address is aligned, the size a multiple of an element's, and every bit pattern is
        // a valid `f32`.
        Ok(unsafe { slice::from_raw_parts_mut(self.address as *mut f32, self.bytes / size_of::<f32>()) })
    }
}

/// The position of a region that overlaps with another one, if there is one.
pub(crate) fn overlapping(regions: &[Region<'_>]) -> Option<usize> {
    let mut order: Vec<usize> = (0..regions.len()).filter(|&index| regions[index].bytes > 0).collect();
    order.sort_by_key(|&index| regions[index].address);
    let overlap =
        |pair: &&[usize]| regions[pair[0]].address + regions[pair[0]].bytes > regions[pair[1]].address;
    order.windows(2).find(overlap).map(|pair| pair[1])
}
