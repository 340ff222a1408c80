//! `whimbrel._native`: a [`whimbrel_worker::Session`] for Python. Programs use the package around it, in
//! `python/whimbrel`, which this module is private to.
//!
//! - `session.rs`: a worker's session; `alone.rs`: the same for a process without a coordinator;
//! - `state.rs`: the state that Python lists; `memory.rs`: access to the memory of Python's tensors, and all of the
//!   crate's unsafe code;
//! - `checkpoint.rs`: a checkpoint, to read from;
//! - `errors.rs`: the exceptions.
//! - `command`: the `whimbrel` command, which the wheel installs.
//!
//! Every call that may wait releases the interpreter first.

mod alone;
mod checkpoint;
mod errors;
mod memory;
mod session;
mod state;

use std::ffi::OsString;

use pyo3::prelude::*;

/// Executes the `whimbrel` command, and returns its exit code. The first of `words` is the command's name. Ends the process
/// itself for `--help`, and for words that it does not understand.
#[pyfunction]
fn command(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| whimbrel_cli::main(words))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<session::Session>()?;
    module.add_class::<alone::Alone>()?;
    module.add_function(wrap_pyfunction!(command, module)?)?;
    module.add_class::<checkpoint::Checkpoint>()?;
    errors::add(module)
}
