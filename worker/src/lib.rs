//! What a training program links to be a Whimbrel worker.
//!
//! A program in Rust implements [`Trainer`] and calls [`train`]; that is all. Programs that keep their loop to
//! themselves drive a [`Session`] step by step, which is what `train` does, too. Programs that only read what a run has
//! saved open a [`Checkpoint`].
//!
//! ```text
//!   main thread                                              control link (its own threads)
//!   Trainer ◄── train ◄── Session ◄─────── Orders ────────── commands ◄──┐
//!                            │ ▲                             heartbeats ─┤ gRPC, coordinator
//!             gradients,     │ └── interrupts ────────────── messages ───┘
//!             notes, state   ▼
//!                     collective::Group ◄── TCP ──► other workers        Saver ──► the run's directory
//! ```
//!
//! Where to start reading:
//!
//! - `trainer.rs`: what a program is asked to do; `train.rs`: the loop that asks it;
//! - `connect.rs`, `environment.rs`, `terms.rs`: from the environment variables to a worker that is ready;
//! - `session.rs`: the loop that finds out what is to be done next, and `member.rs`: the phases it goes through;
//! - `entering.rs`, `steps.rs`, `boundary.rs`, `leaving.rs`: becoming a member, a step, what comes between two steps, and
//!   the end of a membership;
//! - `note.rs`: what members agree on without asking anybody;
//! - `link.rs` and `orders.rs`: the coordinator's side of it; `saver.rs`: checkpoints behind the steps;
//! - `checkpoint.rs`: reading one.

mod checkpoint;
mod control;
mod environment;
mod gradients;
mod logging;
mod member;
mod note;
mod numerics;
mod saver;
mod session;
mod train;
mod trainer;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use control::stream::LinkError;
pub use environment::{ADVERTISE, COORDINATOR, Environment, EnvironmentError, RUN, TOKEN, WORKER};
pub use gradients::GradientsError;
pub use logging::LOG;
pub use session::{
    Session, SessionError, State,
    join::{ConnectError, Newcomer, Program, ReadyError},
    work::{Evaluation, Part, Step, Update, Work},
};
pub use train::train;
pub use trainer::{Context, Shard, Trainer, TrainerError};
pub use whimbrel_plan::{RunId, WorkerId};
pub use whimbrel_state::{Dtype, TensorMut, TensorSpec};
