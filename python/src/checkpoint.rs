//! A checkpoint that Python reads.

use pyo3::prelude::*;
use whimbrel_worker::{Memory, TensorMut};

use crate::{
    errors,
    memory::Region,
    state::{Listed, dtype_name, dtype_of},
};

/// A checkpoint of a run, open for reading.
#[pyclass(frozen, module = "whimbrel._native")]
pub(crate) struct Checkpoint(whimbrel_worker::Checkpoint);

#[pymethods]
impl Checkpoint {
    /// Opens `RUN` or `RUN@STEP`, a path or a URI.
    #[new]
    fn new(py: Python<'_>, uri: &str) -> PyResult<Self> {
        let opened = py.detach(|| whimbrel_worker::Checkpoint::open(uri));
        opened.map(Self).map_err(|error| errors::failed(&error))
    }

    /// Steps applied to the state it holds.
    fn step(&self) -> u64 {
        self.0.step()
    }

    /// Name, dtype and shape of each tensor, in the order of the checkpoint.
    fn tensors(&self) -> Vec<(String, String, Vec<usize>)> {
        let tensors = self.0.tensors().iter();
        tensors.map(|spec| (spec.name.clone(), dtype_name(spec.dtype), spec.shape.clone())).collect()
    }

    /// Fills the memory of these tensors, and verifies every byte.
    fn load(&self, py: Python<'_>, tensors: Vec<Listed>) -> PyResult<()> {
        let filled = tensors.into_iter().map(|(name, dtype, shape, address, bytes)| {
            let dtype = dtype_of(&name, &dtype)?;
            let memory = Memory::Host(Region::new(address, bytes)?.bytes());
            Ok(TensorMut { spec: whimbrel_worker::TensorSpec { name, dtype, shape }, memory })
        });
        let filled = filled.collect::<PyResult<Vec<_>>>()?;
        py.detach(|| self.0.load(filled)).map_err(|error| errors::failed(&error))
    }
}
