//! A worker's session, as Python drives it.

use std::{
    error::Error,
    fmt,
    num::NonZeroU64,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::channel::oneshot;
use pyo3::prelude::*;
use whimbrel_worker::{
    Canceller, Context, Environment, Evaluation, Fingerprint, Joiner, OnNonfinite, Program, SessionError,
    TensorSpec, Work, fatal, start_logging,
};

use crate::{
    errors::{self, WhimbrelError},
    memory::Region,
    state::PyState,
};

/// A shard for Python: step, number within the step, samples.
pub(crate) type PyShard = (u64, u32, Vec<u64>);

/// An update for Python: step, mean loss, sum of the weights.
pub(crate) type PyUpdate = (u64, f64, Option<f64>);

/// A part of an evaluation for Python: step, number, number of parts.
pub(crate) type PyPart = (u64, u32, u32);

/// A session, from before the connection to its end.
#[pyclass(frozen, module = "whimbrel._native")]
pub(crate) struct Session {
    stage: Mutex<Stage>,
    /// Apart from the stage, which is locked while the training thread waits.
    cancel: Mutex<Cancel>,
}

enum Stage {
    /// Not connected. The receiver ends the attempt to connect.
    New(Box<Environment>, oneshot::Receiver<()>),
    /// Connected, and its program is not ready.
    Joining(Box<Joiner>),
    Open(Box<whimbrel_worker::Session>, PyState),
    Over,
}

/// How another thread ends what the training thread waits in.
enum Cancel {
    /// Not connected: ends the attempt.
    Connecting(oneshot::Sender<()>),
    Connected(Canceller),
    /// It was ended before there was a canceller, for this reason.
    Cancelled(String),
}

/// The program's own words for its failure.
#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Reason {}

#[pymethods]
impl Session {
    /// Reads what the environment says of this worker. It is not connected yet.
    #[new]
    fn new() -> PyResult<Self> {
        let environment = Environment::read().map_err(|error| errors::environment(&error))?;
        start_logging();
        let (sender, receiver) = oneshot::channel();
        let stage = Stage::New(Box::new(environment), receiver);
        Ok(Self { stage: Mutex::new(stage), cancel: Mutex::new(Cancel::Connecting(sender)) })
    }

    /// Connects to the coordinator. Takes at most 30 s; `cancel` ends it.
    fn connect(&self, py: Python<'_>) -> PyResult<()> {
        let connected = py.detach(|| {
            let mut stage = self.lock();
            let Stage::New(environment, cancelled) = std::mem::replace(&mut *stage, Stage::Over) else {
                return Err(over());
            };
            let cancelled = async {
                // The sender is kept until there is a canceller.
                cancelled.await.ok();
            };
            let joiner = whimbrel_worker::Session::connect_unless(*environment, cancelled);
            let joiner = joiner.map_err(|error| errors::failed(&error))?;
            self.can_cancel(joiner.canceller());
            *stage = Stage::Joining(Box::new(joiner));
            Ok(())
        });
        py.check_signals()?;
        connected
    }

    /// Whether the run had applied a step when this worker connected.
    fn has_begun(&self) -> bool {
        matches!(&*self.lock(), Stage::Joining(joiner) if joiner.has_begun())
    }

    /// The run's seed, global batch, shards, steps, threads, settings and `reduction.on_nonfinite`, as JSON.
    fn context(&self) -> PyResult<String> {
        match &*self.lock() {
            Stage::Joining(joiner) => Ok(json(joiner.context(), joiner.on_nonfinite())),
            Stage::Open(session, _) => Ok(json(session.context(), session.on_nonfinite())),
            Stage::New(..) | Stage::Over => Err(over()),
        }
    }

    /// Says that the program is built. `gradients` are names and shapes in the order of the flat gradient; `state` is
    /// what [`PyState`] documents.
    #[pyo3(signature = (samples, fingerprint, gradients, state, numerics, tokens_per_sample=None))]
    #[expect(clippy::too_many_arguments, reason = "Python calls it with names")]
    fn ready(
        &self,
        py: Python<'_>,
        samples: u64,
        fingerprint: Fingerprint,
        gradients: Vec<(String, Vec<usize>)>,
        state: Py<PyAny>,
        numerics: String,
        tokens_per_sample: Option<u64>,
    ) -> PyResult<()> {
        let program =
            Program { samples, fingerprint, gradients: specs(gradients), tokens_per_sample, numerics };
        let mut state = PyState::new(state);
        py.detach(|| {
            let mut stage = self.lock();
            let Stage::Joining(joiner) = std::mem::replace(&mut *stage, Stage::Over) else {
                return Err(over());
            };
            let session = joiner.ready(program, &mut state);
            if let Some(raised) = state.take_raised() {
                return Err(raised);
            }
            let session = session.map_err(|error| errors::failed(&error))?;
            *stage = Stage::Open(Box::new(session), state);
            Ok(())
        })
    }

    /// Waits for work: `"step"`, `"evaluate"`, `"initialise"`, or `None` when the worker is to end. Asking for work says
    /// that the last work is done.
    fn next(&self, py: Python<'_>) -> PyResult<Option<&'static str>> {
        self.with(py, |session, state| {
            Ok(match session.next(state)? {
                None => None,
                Some(Work::Initialise) => Some("initialise"),
                Some(Work::Step(_)) => Some("step"),
                Some(Work::Evaluate(_)) => Some("evaluate"),
            })
        })
    }

    /// Ends the run with the next step that is not reduced, on all workers.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |session, _| {
            session.stop();
            Ok(())
        })
    }

    /// Whether the run ends with the step that was reduced last, because a program stopped it.
    fn ends_with_this_step(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |session, _| Ok(session.ends_with_this_step()))
    }

    /// Evaluates after each so many steps, whatever the run spec says; before the first work is asked for.
    fn evaluate_every(&self, py: Python<'_>, steps: NonZeroU64) -> PyResult<()> {
        self.with(py, |session, _| {
            session.evaluate_every(steps);
            Ok(())
        })
    }

    /// The next part of the evaluation; `None` when this worker's are finished, or the generation is called off.
    fn part(&self, py: Python<'_>) -> PyResult<Option<PyPart>> {
        self.with(py, |session, _| {
            let part = session.evaluation().and_then(|mut evaluation| evaluation.part());
            Ok(part.map(|part| (part.step, part.index, part.parts)))
        })
    }

    /// The contribution of the part given out last to the mean validation loss; `None` where there is none.
    fn push_part(&self, py: Python<'_>, value: Option<f64>) -> PyResult<()> {
        self.with(py, |session, _| {
            if let Some(mut evaluation) = session.evaluation() {
                evaluation.push(value);
            }
            Ok(())
        })
    }

    /// Adds up the parts of all workers: the mean validation loss. `None` where there is none.
    fn finish_evaluation(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.with(py, |session, _| session.evaluation().map_or(Ok(None), Evaluation::finish))
    }

    /// The next shard of the step; `None` when this worker's are finished, or the generation is called off.
    fn shard(&self, py: Python<'_>) -> PyResult<Option<PyShard>> {
        self.with(py, |session, _| {
            let Some(mut step) = session.step() else { return Ok(None) };
            Ok(step.shard().map(|(shard, _)| (shard.step, shard.index, shard.samples.to_vec())))
        })
    }

    /// The loss of the shard given out last, its part of the step's mean, and its gradient: the address and size in
    /// bytes of a contiguous tensor of `f32` in host memory, which is copied. With a weight, both are times the weight.
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
        let fits = self.with(py, |session, _| {
            let Some(mut step) = session.step() else { return Ok(true) };
            let Some((_, buffer)) = step.shard() else { return Ok(true) };
            if buffer.len() != gradient.len() {
                return Ok(false);
            }
            buffer.copy_from_slice(gradient);
            step.push_with(loss, weight);
            Ok(true)
        })?;
        if fits { Ok(()) } else { Err(other_size()) }
    }

    /// Sums the gradients of all workers into a tensor, given as for [`push`](Self::push). Returns the step, its
    /// mean loss, and the sum of the weights; `None` where there is nothing to apply.
    fn reduce(&self, py: Python<'_>, address: usize, bytes: usize) -> PyResult<Option<PyUpdate>> {
        let sum = Region::new(address, bytes)?.floats()?;
        let update = self.with(py, |session, _| {
            let Some(step) = session.step() else { return Ok(None) };
            let Some(update) = step.reduce()? else { return Ok(None) };
            let fits = sum.len() == update.gradient.len();
            if fits {
                sum.copy_from_slice(update.gradient);
            }
            Ok(Some((fits, (update.step, update.loss, update.weight))))
        })?;
        match update {
            Some((false, _)) => Err(other_size()),
            update => Ok(update.map(|(_, update)| update)),
        }
    }

    /// Rank, number of members and number of the generation; `None` while this worker is in none.
    fn membership(&self, py: Python<'_>) -> PyResult<Option<(usize, usize, u64)>> {
        let membership = self.with(py, |session, _| Ok(session.membership()))?;
        Ok(membership.map(|membership| (membership.rank, membership.workers, membership.generation)))
    }

    /// The shards that fall to this worker in this step and those after it, `steps` steps in all, if the generation
    /// lasts.
    fn upcoming(&self, py: Python<'_>, steps: u64) -> PyResult<Vec<PyShard>> {
        let shards = self.with(py, |session, _| Ok(session.upcoming(steps)))?;
        Ok(shards.into_iter().map(|shard| (shard.step, shard.index, shard.samples)).collect())
    }

    /// Ends whatever the training thread waits in, from another thread: the worker is to end.
    fn cancel(&self, reason: &str) {
        let mut cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cancel {
            Cancel::Connected(canceller) => canceller.cancel(reason),
            Cancel::Cancelled(_) => {}
            Cancel::Connecting(_) => {
                let before = std::mem::replace(&mut *cancel, Cancel::Cancelled(reason.to_owned()));
                if let Cancel::Connecting(sender) = before {
                    // Fails if the attempt is over: `can_cancel` is next.
                    sender.send(()).ok();
                }
            }
        }
    }

    /// Tells the coordinator that the program failed, and why, and ends the session; `is_fatal` if it would fail again
    /// on any worker. Takes at most 10 s. Does nothing if the session is over.
    fn fail(&self, py: Python<'_>, reason: String, is_fatal: bool) {
        let error: Box<dyn Error + Send + Sync> =
            if is_fatal { fatal(Reason(reason)) } else { Box::new(Reason(reason)) };
        py.detach(|| match std::mem::replace(&mut *self.lock(), Stage::Over) {
            Stage::Joining(joiner) => joiner.fail(&*error),
            Stage::Open(session, _) => session.fail(&*error),
            Stage::New(..) | Stage::Over => {}
        });
    }

    /// Ends the session and closes its connections. Nothing is sent to the coordinator.
    fn close(&self, py: Python<'_>) {
        py.detach(|| *self.lock() = Stage::Over);
    }
}

impl Session {
    /// The worker is connected, so its canceller ends its waits from now on.
    fn can_cancel(&self, canceller: Canceller) {
        let mut cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Cancel::Cancelled(reason) = &*cancel {
            canceller.cancel(reason);
        }
        *cancel = Cancel::Connected(canceller);
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses the session without the interpreter, then runs the handlers of signals that came meanwhile.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl Send + FnOnce(&mut whimbrel_worker::Session, &mut PyState) -> Result<R, SessionError>,
    ) -> PyResult<R> {
        let result = py.detach(|| {
            let mut stage = self.lock();
            let Stage::Open(session, state) = &mut *stage else { return Err(over()) };
            let result = work(session, state);
            match state.take_raised() {
                Some(raised) => Err(raised),
                None => result.map_err(|error| errors::session(&error)),
            }
        });
        py.check_signals()?;
        result
    }
}

/// Names and shapes as specs of `f32` tensors.
pub(crate) fn specs(tensors: Vec<(String, Vec<usize>)>) -> Vec<TensorSpec> {
    tensors.into_iter().map(|(name, shape)| TensorSpec::f32(name, shape)).collect()
}

/// What Python learns of the run.
pub(crate) fn json(context: &Context, on_nonfinite: OnNonfinite) -> String {
    let Context { seed, global_batch, shards, steps, threads, settings } = context;
    serde_json::json!({
        "seed": seed, "global_batch": global_batch, "shards": shards, "steps": steps, "threads": threads,
        "settings": settings, "on_nonfinite": on_nonfinite.as_str(),
    })
    .to_string()
}

pub(crate) fn other_size() -> PyErr {
    WhimbrelError::new_err("the flat gradient has another size than the one that the program was ready with")
}

fn over() -> PyErr {
    WhimbrelError::new_err("the session is over, or has not begun")
}
