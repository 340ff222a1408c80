//! From the coordinator's welcome to a worker that is ready to be a member of a generation.

use std::{error::Error, io, time::Duration};

use tonic::{Status, metadata::errors::InvalidMetadataValue};
use whimbrel_collective::{BindError, Endpoint};
use whimbrel_plan::{RunId, WorkerId};
use whimbrel_proto::{
    border::WireError,
    v1::{self, worker_message::Message},
    with_causes,
};
use whimbrel_state::{Layout, LayoutError, StateBytes, TensorSpec};
use whimbrel_store::{OpenError, Sources, open_run};

use crate::{
    control::{settings::Terms, stream::Link},
    environment::Environment,
    gradients::{Gradients, GradientsError},
    numerics,
    session::{Session, State},
    trainer::Context,
};

/// A worker that could not get into its run.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address to advertise cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The threads of the control link could not be started.
    #[error("cannot start the threads of the control link; check the limits on processes and open files")]
    Runtime(#[source] io::Error),
    /// Nobody answers at the coordinator's address.
    #[error(
        "cannot reach the coordinator at {coordinator}; check that it runs and that its address is right"
    )]
    Unreachable {
        /// Host and port.
        coordinator: String,
        /// What the connection said.
        source: tonic::transport::Error,
    },
    /// The coordinator did not answer in time.
    #[error("the coordinator at {coordinator} sent no welcome within {waited:?}")]
    Slow {
        /// Host and port.
        coordinator: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The coordinator does not want this worker.
    #[error("the coordinator at {coordinator} refused worker {worker} of run {run}")]
    Refused {
        /// Host and port.
        coordinator: String,
        /// The run.
        run: RunId,
        /// The worker.
        worker: WorkerId,
        /// Why.
        source: Status,
    },
    /// The token cannot be sent.
    #[error("the token in the environment holds characters that no token has")]
    Token(#[source] InvalidMetadataValue),
    /// The coordinator's welcome makes no sense.
    #[error("the welcome of the coordinator at {coordinator} makes no sense; are both of one version?")]
    Welcome {
        /// Host and port.
        coordinator: String,
        /// What is wrong with it.
        source: WireError,
    },
    /// The run's directory cannot be opened from here.
    #[error("cannot open the run's directory; every worker saves its own slice of checkpoints there")]
    Store(#[from] OpenError),
}

/// A program that cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// There is nothing to train on.
    #[error("the data set has no samples; check its path in [train.settings]")]
    NoSamples,
    /// The gradient cannot be laid out.
    #[error(transparent)]
    Gradients(#[from] GradientsError),
    /// The state cannot be laid out.
    #[error("the trainer's state makes no sense")]
    State(#[from] LayoutError),
}

/// What the session must know of the program whose steps it drives.
#[derive(Clone, Debug)]
pub struct Program {
    /// Samples in the data set; not zero.
    pub samples: u64,
    /// The tensors that the flat gradient holds one after another, all of them `f32`.
    pub gradients: Vec<TensorSpec>,
    /// Tokens in a sample, where the program counts in tokens.
    pub tokens_per_sample: Option<u64>,
}

/// A worker that its coordinator has welcomed, and that is not ready yet: its program builds what it trains first.
#[derive(Debug)]
pub struct Newcomer {
    pub(crate) environment: Environment,
    pub(crate) endpoint: Endpoint,
    pub(crate) link: Link,
    pub(crate) terms: Terms,
    pub(crate) sources: Sources,
}

impl Newcomer {
    /// Calls the coordinator and is told what the run is about. Bounded by 30 s; not to be called from async code.
    pub fn connect(environment: Environment) -> Result<Self, ConnectError> {
        let endpoint = Endpoint::bind((environment.advertise, 0).into())?;
        let (link, terms) = Link::open(&environment, endpoint.interrupter())?;
        let (run, _) = open_run(&terms.uri)?;
        let mut sources = Sources::new(run);
        for uri in &terms.replicas {
            match open_run(uri) {
                Ok((replica, _)) => sources = sources.with_replica(replica),
                // It is only there for what the run's own directory lacks. What stands in the way, such as credentials
                // that are not on this node, stays so as long as this process lives: it is said once, and this
                // worker's lines in the run's output have it.
                Err(error) => tracing::warn!(
                    uri,
                    error = with_causes(&error),
                    "a replica cannot be opened from here: what the run's own directory lacks is not read from it"
                ),
            }
        }
        Ok(Self { environment, endpoint, link, terms, sources })
    }

    /// What the program must know of its run.
    pub fn context(&self) -> &Context {
        &self.terms.context
    }

    /// Says that the program is built and can take part. `state` is the initial state, as it is made from the seed.
    ///
    /// An error is told to the coordinator too: the worker is of no use to the run and should end.
    pub fn ready(self, program: Program, state: &mut dyn State) -> Result<Session, ReadyError> {
        let (gradients, layout) = match inspect(&program, state) {
            Ok(inspected) => inspected,
            Err(error) => {
                self.fail(&error);
                return Err(error);
            }
        };
        let ready = v1::Ready {
            data_address: self.endpoint.local_address().to_string(),
            numerics: numerics::class(),
            tokens_per_sample: program.tokens_per_sample,
            layout: layout.tensors().iter().map(v1::Tensor::from).collect(),
            samples: program.samples,
        };
        self.link.outbox().send(Message::Ready(ready));
        Ok(Session::new(self, program.samples, gradients, layout))
    }

    /// Tells the coordinator that the program failed, and why. To be called before a worker ends for a reason of its
    /// own.
    pub fn fail(mut self, error: &dyn Error) {
        self.link.outbox().send(Message::TrainerFailed(v1::TrainerFailed { reason: with_causes(error) }));
        self.link.close();
    }
}

fn inspect(program: &Program, state: &mut dyn State) -> Result<(Gradients, Layout), ReadyError> {
    if program.samples == 0 {
        return Err(ReadyError::NoSamples);
    }
    let layout = StateBytes::new(state.tensors())?.layout().clone();
    Ok((Gradients::new(program.gradients.clone())?, layout))
}
