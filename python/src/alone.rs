//! A run in this process without a coordinator, as Python drives it: the calls of [`Session`](crate::session::Session)
//! that the training loop makes.

use std::{
    io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound},
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pyo3::{exceptions::PyOSError, prelude::*};
use whimbrel_proto::with_causes;
use whimbrel_spec::{RunSpec, Script};
use whimbrel_worker::{Fingerprint, Next, Program};

use crate::{
    errors::{self, WhimbrelError},
    memory::Region,
    session::{PyPart, PyShard, PyUpdate, json, other_size, specs},
    state::PyState,
};

/// A run in this process.
#[pyclass(frozen, module = "whimbrel._native")]
pub(crate) struct Alone(Mutex<whimbrel_worker::Alone>);

#[pymethods]
impl Alone {
    /// Reads the run spec of a file. Without one, that of the program's own header, or of `run.toml` beside the program.
    /// `gradients` are as in `Session.ready`.
    #[new]
    fn new(
        spec: Option<PathBuf>,
        program: PathBuf,
        samples: u64,
        gradients: Vec<(String, Vec<usize>)>,
    ) -> PyResult<Self> {
        let spec = match spec {
            Some(spec) => of_file(&spec)?,
            None => match of_header(&program)? {
                Some(spec) => spec,
                None => of_file(&program.with_file_name("run.toml"))?,
            },
        };
        let program = Program {
            samples,
            fingerprint: Fingerprint::new(),
            gradients: specs(gradients),
            tokens_per_sample: None,
            numerics: String::new(),
        };
        let alone = whimbrel_worker::Alone::new(&spec, &program).map_err(|error| errors::failed(&error))?;
        Ok(Self(Mutex::new(alone)))
    }

    /// As in `Session`.
    fn context(&self) -> String {
        let alone = self.lock();
        json(alone.context(), alone.on_nonfinite())
    }

    /// `"step"`, `"evaluate"`, or `None` when every step is applied.
    fn next(&self) -> Option<&'static str> {
        self.lock().next().map(|next| match next {
            Next::Step => "step",
            Next::Evaluate => "evaluate",
        })
    }

    /// As in `Session`.
    fn stop(&self) {
        self.lock().stop();
    }

    /// As in `Session`.
    fn ends_with_this_step(&self) -> bool {
        self.lock().ends_with_this_step()
    }

    /// As in `Session`.
    fn evaluate_every(&self, steps: NonZeroU64) {
        self.lock().evaluate_every(steps);
    }

    /// As in `Session`.
    fn part(&self) -> Option<PyPart> {
        self.lock().part().map(|part| (part.step, part.index, part.parts))
    }

    /// As in `Session`.
    fn push_part(&self, value: Option<f64>) {
        self.lock().push_part(value);
    }

    /// As in `Session`.
    fn finish_evaluation(&self) -> Option<f64> {
        self.lock().finish_evaluation()
    }

    /// As in `Session`.
    fn shard(&self) -> Option<PyShard> {
        let mut alone = self.lock();
        alone.shard().map(|(shard, _)| (shard.step, shard.index, shard.samples.to_vec()))
    }

    /// As in `Session`.
    #[pyo3(signature = (loss, address, bytes, weight=None))]
    fn push(
        &self,
        py: Python<'_>,
        loss: f64,
        address: usize,
        bytes: usize,
        weight: Option<f64>,
    ) -> PyResult<()> {
        let gradient = Region::new(address, bytes)?.floats()?;
        let fits = py.detach(|| {
            let mut alone = self.lock();
            let Some((_, buffer)) = alone.shard() else { return true };
            if buffer.len() != gradient.len() {
                return false;
            }
            buffer.copy_from_slice(gradient);
            alone.push_with(loss, weight);
            true
        });
        if fits { Ok(()) } else { Err(other_size()) }
    }

    /// As in `Session`.
    fn reduce(&self, py: Python<'_>, address: usize, bytes: usize) -> PyResult<Option<PyUpdate>> {
        let sum = Region::new(address, bytes)?.floats()?;
        py.detach(|| {
            let mut alone = self.lock();
            let Some(update) = alone.reduce().map_err(|error| errors::session(&error))? else {
                return Ok(None);
            };
            if sum.len() != update.gradient.len() {
                return Err(other_size());
            }
            sum.copy_from_slice(update.gradient);
            Ok(Some((update.step, update.loss, update.weight)))
        })
    }

    /// As in `Session`.
    #[expect(clippy::unused_self, reason = "the same calls as those of a session")]
    fn membership(&self) -> Option<(usize, usize, u64)> {
        Some((0, 1, 1))
    }

    /// The BLAKE3 of a state after the steps so far, as a run reports it for its last step.
    fn digest(&self, py: Python<'_>, state: Py<PyAny>) -> PyResult<String> {
        let mut state = PyState::new(state);
        let digest = py.detach(|| self.lock().digest(&mut state));
        if let Some(raised) = state.take_raised() {
            return Err(raised);
        }
        digest.map(|hash| hash.to_string()).map_err(|error| WhimbrelError::new_err(with_causes(&error)))
    }
}

/// The run spec in a file.
fn of_file(path: &Path) -> PyResult<RunSpec> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        PyOSError::new_err(format!(
            "cannot read the run spec {origin}: {}; a program that no coordinator started trains by a run spec: put \
             [tool.whimbrel] in the script's header, or run.toml beside it, or name another file with join(…, spec=…)",
            with_causes(&error)
        ))
    })?;
    RunSpec::parse(&origin, &text, &[]).map_err(|error| errors::failed(&error))
}

/// The run spec in a program's header, if the program is a script with one.
fn of_header(program: &Path) -> PyResult<Option<RunSpec>> {
    let origin = program.display().to_string();
    let text = match std::fs::read_to_string(program) {
        Ok(text) => text,
        // An interactive session, a folder or archive with `__main__.py`, or a script in another encoding.
        Err(error) if matches!(error.kind(), NotFound | IsADirectory | NotADirectory | InvalidData) => {
            return Ok(None);
        }
        Err(error) => return Err(PyOSError::new_err(format!("cannot read {origin}: {error}"))),
    };
    let script = Script::read(&origin, &text).map_err(|error| errors::failed(&error))?;
    if !script.has_table() {
        return Ok(None);
    }
    let spec = script.spec("python3", &[], &[]).map_err(|error| errors::failed(&error))?;
    Ok(Some(spec))
}

impl Alone {
    fn lock(&self) -> MutexGuard<'_, whimbrel_worker::Alone> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
