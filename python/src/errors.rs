//! The exceptions, and which error becomes which.

use std::error::Error;

use pyo3::{create_exception, exceptions::PyRuntimeError, prelude::*};
use whimbrel_proto::with_causes;
use whimbrel_worker::{EnvironmentError, SessionError};

create_exception!(whimbrel, WhimbrelError, PyRuntimeError, "An error of Whimbrel's.");
create_exception!(whimbrel, NotAWorker, WhimbrelError, "No agent started this process.");
create_exception!(whimbrel, CoordinatorLost, WhimbrelError, "The connection to the coordinator is lost.");
create_exception!(whimbrel, NonfiniteGradient, WhimbrelError, "The sum of a step's gradients is not finite.");

/// Adds the exceptions to the module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("WhimbrelError", py.get_type::<WhimbrelError>())?;
    module.add("NotAWorker", py.get_type::<NotAWorker>())?;
    module.add("CoordinatorLost", py.get_type::<CoordinatorLost>())?;
    module.add("NonfiniteGradient", py.get_type::<NonfiniteGradient>())
}

/// Any error, with its causes.
pub(crate) fn failed(error: &(dyn Error + 'static)) -> PyErr {
    WhimbrelError::new_err(with_causes(error))
}

/// An error of a session.
pub(crate) fn session(error: &SessionError) -> PyErr {
    let text = with_causes(error);
    match error {
        SessionError::Lost { .. } => CoordinatorLost::new_err(text),
        SessionError::Nonfinite { .. } => NonfiniteGradient::new_err(text),
        _ => WhimbrelError::new_err(text),
    }
}

/// An error in the environment variables of a worker.
pub(crate) fn environment(error: &EnvironmentError) -> PyErr {
    match error {
        EnvironmentError::NotAWorker => NotAWorker::new_err(error.to_string()),
        error => failed(error),
    }
}
