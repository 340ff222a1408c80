//! `whimbrel._native`: a [`whimbrel_worker::Session`] for Python. Programs use the package around it, in
//! `python/whimbrel`, which this module is private to.
//!
//! - `session.rs`: a worker's session; `alone.rs`: the same for a process without a coordinator;
//! - `state.rs`: the state that Python lists; `memory.rs`: access to the memory of Python's tensors, and all of the
//!   crate's unsafe code;
//! - `checkpoint.rs`: a checkpoint, to read from;
//! - `errors.rs`: the exceptions.
//!
//! Every call that may wait releases the interpreter first.

mod alone;
mod checkpoint;
mod errors;
mod memory;
mod session;
mod state;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<session::Session>()?;
    module.add_class::<alone::Alone>()?;
    module.add_class::<checkpoint::Checkpoint>()?;
    errors::add(module)
}
