//! What a training program links to be a Whimbrel worker.
//!
//! A program in Rust implements [`Trainer`] and calls [`train`]; that is all. A program that keeps its own loop drives
//! a [`Session`] step by step, as `train` does. A program that only reads what a run has saved opens a [`Checkpoint`].
//!
//! ```text
//!   main thread                                          control stream (threads of its own)
//!   Trainer ◄── train ◄── Session ◄────── Requests ───── commands ◄──┐
//!                          │  ▲ ▲                        heartbeats ─┤ gRPC, coordinator
//!         member::Worker ◄─┘  │ └───── interrupts ────── reports ────┘
//!         (what comes next)   │
//!                             └► collective::Group ◄── TCP ──► other workers      Saver ──► the run's directory
//! ```
//!
//! Where to start reading:
//!
//! - `trainer.rs`: what a program implements; `train.rs`: the loop that calls it;
//! - `session/join.rs`, `environment.rs`: from the environment variables to a worker that is ready;
//! - `session/work.rs`: the loop that performs what [`whimbrel_member::Worker`] decides, until the program has work;
//! - `session/enter.rs`, `session/step.rs`, `session/evaluation.rs`, `session/boundary.rs`, `session/leave.rs`:
//!   entering a generation, a step, an evaluation, what is done between two steps, and leaving a generation;
//! - `session/membership.rs`: what a program may ask of its generation;
//! - `control/`: the stream to the coordinator; `saver.rs`: uploads behind the steps;
//! - `alone.rs`: a run in this process, without a coordinator;
//! - `checkpoint.rs`: checkpoints for programs that only read them.

mod alone;
mod checkpoint;
mod control;
mod environment;
mod gradients;
mod logging;
mod numerics;
mod saver;
mod session;
mod train;
mod trainer;

pub use alone::{Alone, Next};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use control::{canceller::Canceller, listener::StreamError, stream::OpenError};
pub use environment::{ADVERTISE, COORDINATOR, Environment, EnvironmentError, RUN, TOKEN, WORKER};
pub use gradients::GradientsError;
pub use logging::{LOG, start as start_logging};
pub use session::{
    Session, SessionError, State,
    evaluation::{Evaluation, Part},
    join::{ConnectError, Joiner, Program, ReadyError},
    membership::{AssignedShard, Membership},
    step::{Step, Update},
    work::Work,
};
pub use train::train;
pub use trainer::{Context, Shard, Trainer, TrainerError, fatal};
pub use whimbrel_client::Address;
pub use whimbrel_member::Contradiction;
pub use whimbrel_plan::{RunId, WorkerId};
pub use whimbrel_spec::OnNonfinite;
pub use whimbrel_state::{Dtype, Fingerprint, Memory, TensorMut, TensorSpec};
