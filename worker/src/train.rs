//! The one function that a training program in Rust calls.

use std::{
    any::Any,
    fmt,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use crate::{
    environment::{Environment, EnvironmentError},
    logging,
    session::{
        Session, SessionError,
        join::{ConnectError, Program, ReadyError},
        work::Work,
    },
    trainer::{Context, Trainer, TrainerError},
};
use whimbrel_proto::with_causes;
use whimbrel_state::Fingerprint;

/// The exit code of a program that was not started as a worker, or not correctly.
const NOT_A_WORKER: u8 = 2;

/// Trains as a worker of the run that the environment names, until the run is over: the whole `main` of a training
/// program.
///
/// `build` makes a trainer in its initial state, from the context alone. It is called once, and again only if the run
/// loses all workers with a later state before its first checkpoint.
///
/// Exits with 0 when the coordinator ends the worker; with 1 when the trainer fails or panics, or the coordinator is
/// lost; with 2 when the program was not started as a worker. The reason goes to stderr, and a trainer's failure also
/// to the coordinator, which replaces the worker unless the error is marked as [`fatal`](crate::fatal).
///
/// ```no_run
/// # struct Model;
/// # impl whimbrel_worker::Trainer for Model {
/// #     fn samples(&self) -> u64 { 1 }
/// #     fn gradients(&self) -> Vec<whimbrel_worker::TensorSpec> { Vec::new() }
/// #     fn state(&mut self) -> Vec<whimbrel_worker::TensorMut<'_>> { Vec::new() }
/// #     fn shard(&mut self, _: &whimbrel_worker::Shard<'_>, _: &mut [f32]) -> Result<f64, whimbrel_worker::TrainerError> { Ok(0.0) }
/// #     fn apply(&mut self, _: u64, _: &[f32]) -> Result<(), whimbrel_worker::TrainerError> { Ok(()) }
/// # }
/// # impl Model { fn new(_seed: u64) -> Result<Self, whimbrel_worker::TrainerError> { Ok(Self) } }
/// fn main() -> std::process::ExitCode {
///     whimbrel_worker::train(|context| Model::new(context.seed))
/// }
/// ```
pub fn train<T: Trainer>(build: impl Fn(&Context) -> Result<T, TrainerError>) -> ExitCode {
    logging::start();
    match Environment::read().map_err(Failure::Environment).and_then(|environment| work(environment, &build))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // To stderr, whatever is logged: the agent keeps the last lines of a process.
            if let Err(error) = writeln!(io::stderr().lock(), "error: {}", with_causes(&failure)) {
                tracing::debug!(%error, "stderr is closed");
            }
            match failure {
                Failure::Environment(_) => ExitCode::from(NOT_A_WORKER),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Why a worker ends by itself.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Environment(EnvironmentError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Ready(#[from] ReadyError),
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The trainer returned an error.
    #[error("the trainer failed {doing}")]
    Trainer { doing: Doing, source: TrainerError },
    /// The trainer, or what it calls, panicked.
    #[error("the trainer panicked: {0}")]
    Panicked(String),
}

/// What a trainer was doing when it failed.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Build,
    Shard { step: u64, index: u32 },
    Apply { step: u64 },
    Evaluate { part: u32 },
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build => f.write_str("to build"),
            Self::Shard { step, index } => write!(f, "in shard {index} of step {step}"),
            Self::Apply { step } => write!(f, "to apply step {step}"),
            Self::Evaluate { part } => write!(f, "to evaluate part {part}"),
        }
    }
}

impl Doing {
    fn failed(self) -> impl FnOnce(TrainerError) -> Failure {
        move |source| Failure::Trainer { doing: self, source }
    }
}

fn work<T: Trainer>(
    environment: Environment,
    build: &impl Fn(&Context) -> Result<T, TrainerError>,
) -> Result<(), Failure> {
    let joiner = Session::connect(environment)?;
    let built = guarded(|| {
        let trainer = build(joiner.context()).map_err(Doing::Build.failed())?;
        let program = Program {
            samples: trainer.samples(),
            fingerprint: Fingerprint::new(),
            gradients: trainer.gradients(),
            tokens_per_sample: trainer.tokens_per_sample(),
            numerics: String::new(),
        };
        Ok((trainer, program))
    });
    let (mut trainer, program) = match built {
        Ok(built) => built,
        Err(failure) => {
            joiner.fail(&failure);
            return Err(failure);
        }
    };
    let mut session = joiner.ready(program, &mut trainer)?;
    let trained = guarded(|| steps(&mut session, &mut trainer, build));
    match &trained {
        Ok(()) => {}
        Err(Failure::Session(error)) => session.fail(error),
        Err(failure) => session.fail(failure),
    }
    trained
}

fn steps<T: Trainer>(
    session: &mut Session,
    trainer: &mut T,
    build: &impl Fn(&Context) -> Result<T, TrainerError>,
) -> Result<(), Failure> {
    let context = session.context().clone();
    while let Some(work) = session.next(trainer)? {
        match work {
            Work::Initialise => *trainer = build(&context).map_err(Doing::Build.failed())?,
            Work::Step(mut step) => {
                while let Some((shard, gradient)) = step.shard() {
                    let doing = Doing::Shard { step: shard.step, index: shard.index };
                    let loss = trainer.shard(&shard, gradient).map_err(doing.failed())?;
                    step.push(loss);
                }
                if let Some(update) = step.reduce()? {
                    let doing = Doing::Apply { step: update.step };
                    trainer.apply(update.step, update.gradient).map_err(doing.failed())?;
                }
            }
            Work::Evaluate(mut evaluation) => {
                while let Some(part) = evaluation.part() {
                    let doing = Doing::Evaluate { part: part.index };
                    let value = trainer.evaluate(part.index, part.parts).map_err(doing.failed())?;
                    evaluation.push(value);
                }
                evaluation.finish()?;
            }
        }
    }
    Ok(())
}

/// Runs the program's code, and makes a panic in it an error, so that it is reported to the coordinator, too.
///
/// What the panic left unfinished is not used again: the process ends.
fn guarded<R>(program: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    let panicked = |payload: Box<dyn Any + Send>| Err(Failure::Panicked(message(&*payload)));
    catch_unwind(AssertUnwindSafe(program)).unwrap_or_else(panicked)
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "with a payload that is not text".to_owned())
}
