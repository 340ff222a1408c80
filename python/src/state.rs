//! The program's state: Python lists its tensors whenever the session asks.

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
};
use whimbrel_state::Dtype;
use whimbrel_worker::{Memory, State, TensorMut, TensorSpec, TrainerError};

use crate::memory::{Region, overlapping};

/// A tensor as Python lists it: name, dtype, shape, address, bytes.
pub(crate) type Listed = (String, String, Vec<usize>, usize, usize);

/// A Python object with the methods `listed`, which lists the state's tensors, and `written`, and the attribute `is_last`.
pub(crate) struct PyState {
    object: Py<PyAny>,
    /// What the object raised: [`State::tensors`] cannot return it.
    raised: Option<PyErr>,
}

impl PyState {
    pub(crate) fn new(object: Py<PyAny>) -> Self {
        Self { object, raised: None }
    }

    /// What the object raised since this was asked last.
    pub(crate) fn take_raised(&mut self) -> Option<PyErr> {
        self.raised.take()
    }
}

impl State for PyState {
    fn is_last(&self) -> bool {
        // The attribute is a bool of the package's own.
        Python::attach(|py| self.object.getattr(py, "is_last")?.extract(py)).unwrap_or(false)
    }

    fn tensors(&mut self) -> Vec<TensorMut<'_>> {
        list(&self.object).unwrap_or_else(|error| {
            self.raised.get_or_insert(error);
            Vec::new()
        })
    }

    fn written(&mut self) -> Result<(), TrainerError> {
        Python::attach(|py| self.object.call_method0(py, "written")).map(|_| ()).map_err(|error| {
            let text = error.to_string();
            self.raised.get_or_insert(error);
            text.into()
        })
    }
}

/// The tensors as Python lists them.
fn list(object: &Py<PyAny>) -> PyResult<Vec<TensorMut<'_>>> {
    let listed: Vec<Listed> = Python::attach(|py| object.call_method0(py, "listed")?.extract(py))?;
    let regions = listed.iter().map(|(.., address, bytes)| Region::new(*address, *bytes));
    let regions = regions.collect::<PyResult<Vec<_>>>()?;
    if let Some(index) = overlapping(&regions) {
        let name = &listed[index].0;
        return Err(PyValueError::new_err(format!(
            "{name} shares its memory with another tensor of the state; pass one of the two to join(), or a clone"
        )));
    }
    let tensors = listed.into_iter().zip(regions).map(|((name, dtype, shape, ..), region)| {
        let dtype = dtype_of(&name, &dtype)?;
        Ok(TensorMut { spec: TensorSpec { name, dtype, shape }, memory: Memory::Host(region.bytes()) })
    });
    tensors.collect()
}

/// The name of a dtype, as Python lists it.
pub(crate) fn dtype_name(dtype: Dtype) -> String {
    serde_json::to_value(dtype).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(crate) fn dtype_of(name: &str, dtype: &str) -> PyResult<Dtype> {
    serde_json::from_value(serde_json::Value::String(dtype.to_owned()))
        .map_err(|_| PyTypeError::new_err(format!("{name} is {dtype}, which a checkpoint cannot hold")))
}
