//! The session: a worker's part in its run, driven by one thread of the program.
//!
//! What comes next is decided by [`whimbrel_member::Worker`]. The session performs it: [`work`] asks for the next
//! action and gives the program its work, [`enter`] joins a generation and gets its state, [`step`] and [`evaluation`]
//! compute, [`boundary`] saves and completes, [`leave`] ends a membership, [`membership`] tells the
//! program about it. [`join`] sets a session up.

use std::{error::Error, num::NonZeroU64, sync::Arc};

use whimbrel_client::Address;
use whimbrel_collective::{Accumulator, Endpoint, Group};
use whimbrel_member::{Contradiction, Event, Phase, Worker};
use whimbrel_plan::Sampler;
use whimbrel_proto::{
    v1::{self, worker_message::Message},
    with_causes,
};
use whimbrel_spec::OnNonfinite;
use whimbrel_state::{Fingerprint, Layout, LayoutError, StateBytes, TensorMut};
use whimbrel_store::Sources;

use crate::{
    control::{canceller::Canceller, listener::StreamError, settings::RunSettings, stream::ControlStream},
    gradients::Gradients,
    saver::Saver,
    session::open::Open,
    trainer::{Context, Trainer, TrainerError, is_fatal},
};

mod boundary;
mod enter;
pub(crate) mod evaluation;
pub(crate) mod join;
mod leave;
pub(crate) mod membership;
mod open;
pub(crate) mod step;
pub(crate) mod work;

/// A program's state, which the session reads and fills.
///
/// Every [`Trainer`] is one.
pub trait State {
    /// The tensors of the state. Same names, dtypes and shapes at every call.
    fn tensors(&mut self) -> Vec<TensorMut<'_>>;

    /// Called when the session has written the whole memory that [`tensors`](Self::tensors) gave last: a state was
    /// received or restored. For programs whose tensors are elsewhere, or whose state is more than tensors. An error
    /// ends the session.
    fn written(&mut self) -> Result<(), TrainerError> {
        Ok(())
    }

    /// Whether the run ends with this state, though its spec has more steps. It is for programs that call
    /// [`Session::stop`], and has to be a part of the state: workers learn it from the state that they receive or restore.
    fn is_last(&self) -> bool {
        false
    }
}

impl<T: Trainer> State for T {
    fn tensors(&mut self) -> Vec<TensorMut<'_>> {
        self.state()
    }
}

/// Why a session cannot go on. The worker reports it with [`Session::fail`], and ends.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The coordinator is gone, or the network to it.
    #[error(
        "lost the coordinator at {coordinator}; this worker ends, and a coordinator over the same run starts others"
    )]
    Lost {
        /// Where it listened.
        coordinator: Address,
        /// How.
        source: Arc<StreamError>,
    },
    /// The gradient is infinite or not a number, and the run stops for that. It would be so on every worker.
    #[error(
        "the gradient of {tensor:?} is {value} at element {element} in step {step}; lower the learning rate, \
         look at the samples of that step, or set on_nonfinite in [reduction]: \"skip\", or \"pass\" for a program that \
         decides itself, such as one with a GradScaler"
    )]
    Nonfinite {
        /// The step, counted from 0.
        step: u64,
        /// The first tensor with such an element.
        tensor: String,
        /// The element's index in the tensor, in row-major order.
        element: usize,
        /// Its value.
        value: f32,
    },
    /// The layout of the program's state differs from the one that it was ready with.
    #[error("the trainer's state has changed its layout; it must list the same tensors every time")]
    State(#[from] LayoutError),
    /// The program could not take over the state that was received or restored.
    #[error("the program could not take over a state that this worker received or restored")]
    Written(#[source] TrainerError),
    /// The program did not do its work as the session gave it out.
    #[error("misuse of the session: {0}")]
    Misuse(String),
    /// The coordinator's generation contradicts what this worker knows.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// A worker's part in its run, from one thread of the program, which calls [`next`](Self::next) for work and does it.
///
/// Between two calls the session does everything else: it joins and leaves generations, receives, sends, restores and
/// saves the state, and exchanges gradients and losses. An interrupt, a new generation or the loss of the coordinator
/// ends any of its waits at once. A session blocks the thread that calls it, which must not be one of an async runtime.
///
/// ```no_run
/// # use whimbrel_worker::*;
/// # fn example<T: Trainer>(mut trainer: T, program: Program) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let joiner = Session::connect(Environment::read()?)?;
/// // build the trainer from `joiner.context()`
/// let mut session = joiner.ready(program, &mut trainer)?;
/// while let Some(work) = session.next(&mut trainer)? {
///     match work {
///         Work::Initialise => { /* build the trainer's state anew */ }
///         Work::Step(mut step) => {
///             while let Some((shard, gradient)) = step.shard() {
///                 let loss = trainer.shard(&shard, gradient)?;
///                 step.push(loss);
///             }
///             if let Some(update) = step.reduce()? {
///                 trainer.apply(update.step, update.gradient)?;
///             }
///         }
///         Work::Evaluate(mut evaluation) => {
///             while let Some(part) = evaluation.part() {
///                 evaluation.push(trainer.evaluate(part.index, part.parts)?);
///             }
///             evaluation.finish()?;
///         }
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session {
    /// Decides what comes next.
    worker: Worker,
    /// The connections to the other members, while this worker is one.
    group: Option<Group>,
    /// The program's work that is given out and not finished.
    open: Open,
    endpoint: Endpoint,
    control: ControlStream,
    settings: RunSettings,
    /// Where checkpoints are read from.
    sources: Sources,
    gradients: Gradients,
    layout: Layout,
    sampler: Sampler,
    fingerprint: Fingerprint,
    accumulator: Accumulator,
    sum: Vec<f32>,
    saver: Saver,
    coordinator: Address,
}

impl Session {
    /// What the program must know of its run.
    pub fn context(&self) -> &Context {
        &self.settings.context
    }

    /// Evaluates the model after each `every` steps, whatever the run spec says. Every worker of the run says the same,
    /// before it asks for its first work.
    pub fn evaluate_every(&mut self, every: NonZeroU64) {
        self.worker.evaluate_every(every);
    }

    /// Ends the run with the next step that the workers have not reduced yet, on all workers alike: its checkpoint is the
    /// run's last one, and the run is finished. One worker's program is enough to want it.
    ///
    /// After each [`Step::reduce`](crate::Step::reduce) the program asks whether that step [was the
    /// last](Self::ends_with_this_step), and keeps it in its state, see [`State::is_last`].
    pub fn stop(&mut self) {
        self.worker.end_run();
    }

    /// Whether the run ends with the step that was reduced last, though its spec has more: a program has
    /// [stopped](Self::stop) it.
    pub fn ends_with_this_step(&self) -> bool {
        matches!(self.worker.phase(), Some(Phase::Applying(reduced)) if reduced.is_last())
    }

    /// What happens to a step whose gradient is infinite or NaN.
    pub fn on_nonfinite(&self) -> OnNonfinite {
        self.settings.on_nonfinite
    }

    /// Ends the session's waits from another thread.
    pub fn canceller(&self) -> Canceller {
        self.control.canceller()
    }

    /// Tells the coordinator that the program failed, and why, and ends the session. A worker that ends by itself calls
    /// this first. Takes at most 10 s.
    ///
    /// The run fails with the error, and no other worker is started for it, if it is a [`SessionError::Nonfinite`] or
    /// marked as [`fatal`](crate::fatal).
    pub fn fail(mut self, error: &(dyn Error + 'static)) {
        // The connections first: the peers must not wait for this worker's share.
        self.group = None;
        self.control.outbox().send(trainer_failed(error));
        // A checkpoint may be complete but for this worker's slice.
        self.saver.finish(&self.control);
        self.control.close();
    }

    /// Passes on how an action ended.
    fn handle(&mut self, event: Event) {
        self.worker.handle(event);
        self.report();
    }

    /// Whether the generation that this worker is a member of is called off; false if it is no member.
    fn is_called_off(&self) -> bool {
        self.worker.generation().is_some_and(|generation| self.control.calls_off(generation.number))
    }

    /// The program's state as bytes. Fails if its layout has changed.
    fn bytes_of<'s>(&self, state: &'s mut dyn State) -> Result<StateBytes<'s>, LayoutError> {
        let bytes = StateBytes::new(state.tensors())?;
        self.layout.same_as(bytes.layout())?;
        Ok(bytes)
    }
}

/// The message for an error with which a worker ends by itself.
fn trainer_failed(error: &(dyn Error + 'static)) -> Message {
    // The same samples give the same gradient on every worker.
    let is_nonfinite = matches!(error.downcast_ref(), Some(SessionError::Nonfinite { .. }));
    let fatal = is_nonfinite || is_fatal(error);
    Message::TrainerFailed(v1::TrainerFailed { reason: with_causes(error), fatal })
}

/// The error for a program that calls the session in another way than documented.
pub(crate) fn misuse(what: impl Into<String>) -> SessionError {
    SessionError::Misuse(what.into())
}

/// The error for a session that is used after an error that ended it.
fn no_group() -> whimbrel_collective::Error {
    whimbrel_collective::Error::Misuse("the session was used after an error that ended it".into())
}
