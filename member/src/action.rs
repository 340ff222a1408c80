//! What a worker's driver is to do next.

use std::{ops::Range, sync::Arc};

use whimbrel_plan::Generation;

use crate::requests::End;

/// What the driver does next, and the [`Event`](crate::Event) with which it answers.
///
/// For the actions that are an operation with the peers, or a restore, [`Event::Broken`](crate::Event::Broken) is the
/// answer where they fail or are interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait until [`Worker::wakes`](crate::Worker::wakes) says that the requests have something to do. No event.
    Wait,
    /// Connect with the other members of this generation, as its member of this rank. `Joined`.
    Join {
        /// The generation.
        generation: Arc<Generation>,
        /// This worker's rank in it.
        rank: usize,
    },
    /// Send the state to these ranks. `StateReady`.
    SendState {
        /// The ranks that lack the state.
        to: Vec<usize>,
    },
    /// Receive the state from this rank. `StateReady`.
    ReceiveState {
        /// A rank that holds the state.
        from: usize,
    },
    /// Read the state from a checkpoint. `StateReady` or `RestoreFailed`.
    Restore {
        /// Steps applied to the checkpoint's state.
        step: u64,
        /// The manifest's name within the run's directory.
        manifest: String,
    },
    /// Have the program make the initial state from the run's seed. No event: the next call of
    /// [`Worker::next`](crate::Worker::next) says that it is made.
    Initialise,
    /// Have the program compute these shards, and all-reduce their gradients with the note of
    /// [`Worker::step_note`](crate::Worker::step_note). `Reduced`. Returned again where the driver asks for the next
    /// action before the step is reduced.
    Step {
        /// The step, counted from 0.
        step: u64,
        /// The shards that this worker computes.
        shards: Range<u32>,
    },
    /// Have the program evaluate these parts, and exchange their values with [`encode_parts`](crate::encode_parts).
    /// `Evaluated`. Returned again where the driver asks for the next action before that.
    Evaluate {
        /// Steps applied to the state.
        step: u64,
        /// The parts that this worker evaluates.
        parts: Range<u32>,
    },
    /// Copy this worker's slice of the state and upload it behind the next steps. The driver reports how that ends. No
    /// event.
    Stage {
        /// The generation that takes the checkpoint.
        generation: u64,
        /// Steps applied to the state.
        step: u64,
        /// The slice: which of so many.
        rank: usize,
        /// The number of slices.
        slices: usize,
    },
    /// Hash the final state. `Hashed`.
    Hash {
        /// Steps applied to the state.
        step: u64,
    },
    /// Close the connections to the peers: the generation is left. No event.
    Leave,
    /// End the worker. No event.
    End(End),
}
