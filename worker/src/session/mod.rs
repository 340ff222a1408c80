//! The session: what a program's main thread and its run have to do with each other, step by step.

pub(crate) mod boundary;
pub(crate) mod enter;
pub(crate) mod join;
pub(crate) mod leave;
pub(crate) mod step;
pub(crate) mod work;

use std::{error::Error, sync::Arc};

use whimbrel_collective::{Accumulator, Endpoint};
use whimbrel_plan::{Sampler, WorkerId};
use whimbrel_proto::{
    v1::{self, worker_message::Message},
    with_causes,
};
use whimbrel_state::{Layout, LayoutError, StateBytes, TensorMut};
use whimbrel_store::{Limits, Sources};

use crate::{
    control::{
        requests::End,
        settings::Terms,
        stream::{Link, LinkError},
    },
    environment::Environment,
    gradients::Gradients,
    member::{Computing, Evaluating, Member, Phase},
    saver::Saver,
    session::{
        join::{ConnectError, Newcomer},
        work::{Evaluation, Step, Work},
    },
    trainer::{Context, Trainer},
};

/// A program's state, whenever the session has to read it or fill it.
///
/// Every [`Trainer`] is one.
pub trait State {
    /// The tensors of the state. Same names, dtypes and shapes at every call.
    fn tensors(&mut self) -> Vec<TensorMut<'_>>;
}

impl<T: Trainer> State for T {
    fn tensors(&mut self) -> Vec<TensorMut<'_>> {
        self.state()
    }
}

/// Why a session cannot go on: the worker should tell with [`Session::fail`], and end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The coordinator is gone, or the network to it.
    #[error(
        "lost the coordinator at {coordinator}; this worker ends, and a coordinator over the same run starts others"
    )]
    Lost {
        /// Host and port.
        coordinator: String,
        /// How.
        source: Arc<LinkError>,
    },
    /// The gradient is infinite or not a number, and the run is to stop then.
    #[error(
        "the gradient of {tensor:?} is {value} at element {element} in step {step}; lower the learning rate, \
         look at the samples of that step, or set on_nonfinite = \"skip\" in [reduction]"
    )]
    Nonfinite {
        /// The step, counted from 0.
        step: u64,
        /// The first tensor with such an element.
        tensor: String,
        /// The element's place in the tensor, in row-major order.
        element: usize,
        /// What it is.
        value: f32,
    },
    /// The program's state is not laid out as it was when it said that it was ready.
    #[error("the trainer's state has changed its layout; it must list the same tensors every time")]
    State(#[from] LayoutError),
    /// The program did not do its work as the session gave it out.
    #[error("misuse of the session: {0}")]
    Misuse(String),
    /// The coordinator's generation contradicts what this worker knows.
    #[error(
        "generation {generation} cannot be begun: {why}; are the coordinator and this program of one version?"
    )]
    Misled {
        /// The generation's number.
        generation: u64,
        /// The contradiction.
        why: String,
    },
}

/// The state that the program holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The initial one, as it was built; the run may be elsewhere.
    Pristine,
    /// The run's, after so many steps.
    Step(u64),
    /// None: it is half filled, or about to be replaced.
    Nothing,
}

impl Held {
    /// The steps applied to the run's state, if it is held.
    pub(crate) fn step(self) -> Option<u64> {
        match self {
            Self::Step(step) => Some(step),
            Self::Pristine | Self::Nothing => None,
        }
    }

    pub(crate) fn is_initial(self) -> bool {
        matches!(self, Self::Pristine | Self::Step(0))
    }
}

/// A worker's part in its run, from one thread of the program, which calls [`next`](Self::next) for work and does it.
///
/// Everything else happens in between: generations are joined and left, the state is received, given, restored and
/// saved, gradients and losses are exchanged. An interrupt, a new generation or the loss of the coordinator wakes
/// whatever it waits in at once. A session blocks the thread that calls it, which must not be one of an async runtime.
///
/// ```no_run
/// # use whimbrel_worker::*;
/// # fn example<T: Trainer>(mut trainer: T, program: Program) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let newcomer = Session::connect(Environment::read()?)?;
/// // build the trainer from `newcomer.context()`
/// let mut session = newcomer.ready(program, &mut trainer)?;
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
    pub(crate) worker: WorkerId,
    pub(crate) endpoint: Endpoint,
    pub(crate) link: Link,
    pub(crate) terms: Terms,
    /// Where checkpoints are read from.
    pub(crate) sources: Sources,
    pub(crate) gradients: Gradients,
    pub(crate) layout: Layout,
    pub(crate) sampler: Sampler,
    pub(crate) accumulator: Accumulator,
    pub(crate) sum: Vec<f32>,
    pub(crate) held: Held,
    pub(crate) member: Option<Member>,
    /// The last generation begun, or tried to.
    pub(crate) last_generation: u64,
    /// Mean loss of the step that led to the state held, if this worker took part in it.
    pub(crate) loss: Option<f64>,
    /// The last validation loss.
    pub(crate) val_loss: Option<f64>,
    pub(crate) saver: Saver,
    coordinator: String,
}

/// What `advance` came to.
enum Due {
    Initialise,
    Step,
    Evaluate,
    End,
}

impl Session {
    /// Calls the coordinator. What comes back is not a session yet: the program builds what it trains first, and says
    /// that it is [ready](Newcomer::ready).
    pub fn connect(environment: Environment) -> Result<Newcomer, ConnectError> {
        Newcomer::connect(environment)
    }

    pub(crate) fn new(newcomer: Newcomer, samples: u64, gradients: Gradients, layout: Layout) -> Self {
        let Newcomer { environment, endpoint, link, terms, sources } = newcomer;
        let limits = Limits { bandwidth: terms.bandwidth, ..Limits::default() };
        let Context { seed, global_batch, shards, .. } = terms.context;
        Self {
            worker: environment.worker,
            coordinator: environment.coordinator,
            sampler: Sampler::new(samples, seed, global_batch, shards),
            accumulator: Accumulator::new(terms.reduction, gradients.elements(), shards),
            sum: vec![0.0; gradients.elements()],
            // Half of what the peers wait for this worker, so that a slow store does not make it look dead.
            saver: Saver::new(sources.primary().clone(), layout.clone(), terms.step_timeout / 2, limits),
            held: Held::Pristine,
            member: None,
            last_generation: 0,
            loss: None,
            val_loss: None,
            endpoint,
            link,
            terms,
            sources,
            gradients,
            layout,
        }
    }

    /// What the program must know of its run.
    pub fn context(&self) -> &Context {
        &self.terms.context
    }

    /// Blocks until there is something to do; `None` when the coordinator says that the worker is to end.
    ///
    /// `state` is the program's state, the same one every time. Asking for more work says that the work before is done:
    /// the update applied, the initial state made.
    pub fn next(&mut self, state: &mut dyn State) -> Result<Option<Work<'_>>, SessionError> {
        Ok(match self.advance(state)? {
            Due::Initialise => Some(Work::Initialise),
            Due::Step => Some(Work::Step(Step { session: self })),
            Due::Evaluate => Some(Work::Evaluate(Evaluation { session: self })),
            Due::End => None,
        })
    }

    /// The step handed out last, if it is not done yet: for bindings that cannot keep the borrow of a [`Step`].
    pub fn step(&mut self) -> Option<Step<'_>> {
        let open = self.member.as_ref().is_some_and(|member| matches!(member.phase, Phase::Step(_)));
        open.then_some(Step { session: self })
    }

    /// The evaluation handed out last, if it is not done yet: for bindings that cannot keep the borrow of an
    /// [`Evaluation`].
    pub fn evaluation(&mut self) -> Option<Evaluation<'_>> {
        let open = self.member.as_ref().is_some_and(|member| matches!(member.phase, Phase::Evaluating(..)));
        open.then_some(Evaluation { session: self })
    }

    /// Tells the coordinator that the program failed, and why, and ends the session. To be called before a worker ends
    /// for a reason of its own; bounded by 10 s.
    pub fn fail(mut self, error: &dyn Error) {
        // The peers first: they must not wait for this worker's share.
        self.member = None;
        self.link.outbox().send(Message::TrainerFailed(v1::TrainerFailed { reason: with_causes(error) }));
        // A checkpoint under way may be whole but for this worker's slice.
        self.saver.finish(&self.link);
        self.link.close();
    }

    /// Goes on until the program has something to do.
    fn advance(&mut self, state: &mut dyn State) -> Result<Due, SessionError> {
        loop {
            match self.link.ended() {
                None => {}
                Some(End::Leave(reason)) => {
                    tracing::info!(reason, "told to leave");
                    self.member = None;
                    return Ok(Due::End);
                }
                Some(End::Lost(source)) => {
                    return Err(SessionError::Lost { coordinator: self.coordinator.clone(), source });
                }
            }
            let Some(mut member) = self.member.take() else {
                if let Some(generation) = self.link.next_generation(self.last_generation) {
                    self.member = self.enter(generation, state)?;
                }
                continue;
            };
            let number = member.generation.number;
            let shards = member.assignment();
            let mut due = None;
            match member.phase {
                // What the program did last is done, whatever has become of the generation since.
                Phase::Initialising(todo) => {
                    self.hold(number, Some(0));
                    member.phase = Phase::Boundary(todo);
                }
                Phase::Applying(summed) => {
                    member.step += 1;
                    member.phase = Phase::Boundary(self.applied(number, member.rank, member.step, summed));
                }
                _ if self.link.calls_off(number) => {
                    self.leave_broken(member, format!("generation {number} was interrupted"), None);
                    continue;
                }
                Phase::Uninitialised(todo) => {
                    member.phase = Phase::Initialising(todo);
                    due = Some(Due::Initialise);
                }
                Phase::Step(_) => {
                    self.accumulator.begin(shards.clone());
                    member.phase = Phase::Step(Computing::new(shards));
                    due = Some(Due::Step);
                }
                Phase::Boundary(todo) => match self.at_boundary(member, todo, state)? {
                    Some(still) => member = still,
                    None => continue,
                },
                Phase::Evaluating(_, todo) => {
                    member.phase = Phase::Evaluating(Evaluating::new(shards), todo);
                    due = Some(Due::Evaluate);
                }
                Phase::Completed => self.stand_by(&mut member, state)?,
            }
            self.member = Some(member);
            if let Some(due) = due {
                return Ok(due);
            }
        }
    }

    /// The program's state as bytes, after a look at whether it is laid out as ever.
    pub(crate) fn bytes_of<'s>(&self, state: &'s mut dyn State) -> Result<StateBytes<'s>, LayoutError> {
        let bytes = StateBytes::new(state.tensors())?;
        self.layout.same_as(bytes.layout())?;
        Ok(bytes)
    }

    /// Sets down which state the program holds from now on.
    pub(crate) fn hold(&mut self, generation: u64, step: Option<u64>) {
        let held = step.map_or(Held::Nothing, Held::Step);
        if held != self.held {
            // It belongs to the step that led to the state held before.
            self.loss = None;
        }
        self.held = held;
        self.link.set_progress(generation, step);
    }
}
