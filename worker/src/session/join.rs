//! From the environment variables to a session: the worker connects, its program builds, and it is ready.

use std::error::Error;

use whimbrel_collective::{Accumulator, BindError, Endpoint};
use whimbrel_member::Worker;
use whimbrel_plan::Sampler;
use whimbrel_proto::{
    v1::{self, worker_message::Message},
    with_causes,
};
use whimbrel_spec::OnNonfinite;
use whimbrel_state::{Fingerprint, Layout, LayoutError, StateBytes, TensorSpec};
use whimbrel_store::{Limits, OpenError as OpenRunError, Sources, open_run};

use crate::{
    control::{
        canceller::Canceller,
        settings::RunSettings,
        stream::{ControlStream, OpenError},
    },
    environment::Environment,
    gradients::{Gradients, GradientsError},
    numerics,
    saver::Saver,
    session::{Session, State, open::Open, trainer_failed},
    trainer::Context,
};

/// A worker could not connect to its run.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address to advertise cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The coordinator could not be reached, or refused this worker.
    #[error(transparent)]
    Control(#[from] OpenError),
    /// The run's directory cannot be opened from here.
    #[error("cannot open the run's directory; every worker saves its own slice of checkpoints there")]
    Store(#[from] OpenRunError),
}

/// A program that cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// The data set is empty.
    #[error("the data set has no samples; check its path in [train.settings]")]
    NoSamples,
    /// The gradient cannot be laid out.
    #[error(transparent)]
    Gradients(#[from] GradientsError),
    /// The state cannot be laid out.
    #[error("the trainer's state is invalid")]
    State(#[from] LayoutError),
}

/// What a session must know of its program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Samples in the data set; not zero.
    pub samples: u64,
    /// What tells the data set apart from another one of that size; may be empty.
    pub fingerprint: Fingerprint,
    /// The tensors that the flat gradient holds one after another, all of them `f32`.
    pub gradients: Vec<TensorSpec>,
    /// Tokens in a sample, where the program counts in tokens.
    pub tokens_per_sample: Option<u64>,
    /// What the bits of a step depend on besides the processor: versions of the libraries that compute, their threads.
    /// Part of the worker's numerics class; empty where this library alone decides.
    pub numerics: String,
}

/// A worker that its coordinator has welcomed, and whose program is not ready yet: it builds what it trains first.
#[derive(Debug)]
pub struct Joiner {
    environment: Environment,
    endpoint: Endpoint,
    control: ControlStream,
    settings: RunSettings,
    sources: Sources,
}

impl Session {
    /// Connects to the coordinator. The result is not a session yet: the program builds what it trains first, and then
    /// says that it is [ready](Joiner::ready). Takes at most 30 s; not to be called from async code.
    pub fn connect(environment: Environment) -> Result<Joiner, ConnectError> {
        Self::connect_unless(environment, std::future::pending())
    }

    /// Like [`connect`](Self::connect); fails with [`OpenError::Cancelled`] as soon as `cancelled` is done.
    pub fn connect_unless(
        environment: Environment,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Joiner, ConnectError> {
        let endpoint = Endpoint::bind((environment.advertise, 0).into())?;
        let (control, settings) = ControlStream::open(&environment, endpoint.interrupter(), cancelled)?;
        let (run, _) = open_run(&settings.uri)?;
        let mut sources = Sources::new(run);
        for uri in &settings.replicas {
            match open_run(uri) {
                Ok((replica, _)) => sources = sources.with_replica(replica),
                // A replica is only read for what the run's own directory lacks. The cause, such as credentials that
                // this node does not have, lasts as long as this process: one warning is enough, and the run's output
                // has it.
                Err(error) => tracing::warn!(
                    uri,
                    error = with_causes(&error),
                    "a replica cannot be opened from here: what the run's own directory lacks is not read from it"
                ),
            }
        }
        Ok(Joiner { environment, endpoint, control, settings, sources })
    }
}

impl Joiner {
    /// What the program must know of its run.
    pub fn context(&self) -> &Context {
        &self.settings.context
    }

    /// What happens to a step whose gradient is infinite or NaN.
    pub fn on_nonfinite(&self) -> OnNonfinite {
        self.settings.on_nonfinite
    }

    /// Whether the run had applied a step when this worker connected. A program that fails before would most likely fail
    /// again on any worker.
    pub fn has_begun(&self) -> bool {
        self.settings.has_begun
    }

    /// Ends the session's waits from another thread.
    pub fn canceller(&self) -> Canceller {
        self.control.canceller()
    }

    /// Tells the coordinator that the program is built and can take part. `state` is the initial state, as it is made
    /// from the seed.
    ///
    /// An error is reported to the coordinator, too. The worker is of no use to the run then, and should end.
    pub fn ready(self, program: Program, state: &mut dyn State) -> Result<Session, ReadyError> {
        let (gradients, layout) = match inspect(&program, state) {
            Ok(inspected) => inspected,
            Err(error) => {
                self.fail(&error);
                return Err(error);
            }
        };
        let Self { environment, endpoint, control, settings, sources } = self;
        control.outbox().send(Message::Ready(v1::Ready {
            data_address: endpoint.local_address().to_string(),
            numerics: numerics::class(&program.numerics),
            tokens_per_sample: program.tokens_per_sample,
            layout: layout.tensors().iter().map(v1::Tensor::from).collect(),
            samples: program.samples,
            fingerprint: program.fingerprint.clone().into_iter().collect(),
        }));
        let limits = Limits { bandwidth: settings.bandwidth, ..Limits::default() };
        // Half of the time for which the peers wait for this worker, so that a slow store does not make it look dead.
        let save_timeout = settings.step_timeout / 2;
        let Context { seed, global_batch, shards, .. } = settings.context;
        Ok(Session {
            worker: Worker::new(environment.worker, settings.schedule),
            group: None,
            open: Open::Nothing,
            saver: Saver::new(sources.primary().clone(), layout.clone(), save_timeout, limits),
            fingerprint: program.fingerprint,
            sampler: Sampler::new(program.samples, seed, global_batch, shards),
            accumulator: Accumulator::new(settings.reduction, gradients.elements(), shards),
            sum: vec![0.0; gradients.elements()],
            coordinator: environment.coordinator,
            endpoint,
            control,
            settings,
            sources,
            gradients,
            layout,
        })
    }

    /// Tells the coordinator that the program failed, and why. A worker that ends by itself calls this first.
    /// The run fails with an error that is marked as [`fatal`](crate::fatal).
    pub fn fail(mut self, error: &(dyn Error + 'static)) {
        self.control.outbox().send(trainer_failed(error));
        self.control.close();
    }
}

/// Checks what the program will train.
fn inspect(program: &Program, state: &mut dyn State) -> Result<(Gradients, Layout), ReadyError> {
    if program.samples == 0 {
        return Err(ReadyError::NoSamples);
    }
    let layout = StateBytes::new(state.tensors())?.layout().clone();
    Ok((Gradients::new(program.gradients.clone())?, layout))
}
