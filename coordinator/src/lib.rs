//! The gRPC coordinator: the server that decides. It keeps nothing that matters outside the store.
//!
//! ```text
//!   clients ──┐                         ┌── recorder (one a run): writes the run's log, commits its checkpoints
//!   agents  ──┼── serve ──► driver ─────┼── replica tasks (one a replica): copy the run to its other stores
//!   workers ──┘   (gRPC)    │    ▲      └── output writer (one a run): stores what the run's workers print
//!                           ▼    │
//!                    whimbrel_core::Core: events in, commands out
//! ```
//!
//! | folder | what | start reading at |
//! | --- | --- | --- |
//! | `serve` | binds, authenticates, passes calls and streams on to the driver | `server.rs` |
//! | `driver` | the one task that owns the core; what it keeps of each hosted run | `mod.rs` |
//! | `open` | submits, resumes and adopts runs: how this coordinator comes to hold a term | `take_over.rs` |
//! | `record` | the tasks of a run during a term: recorder, replica tasks, output writer | `recorder.rs` |
//! | `events` | maps facts to the messages that clients get | `mod.rs` |
//!
//! Dependencies point one way: `serve` → `driver` → `open`, `record`, `events`. The tasks in `open` and `record` report to the
//! driver through channels and never see its state.

mod driver;
mod events;
mod open;
mod panics;
mod record;
mod serve;

pub use open::{
    compare::{ContinuedElsewhere, NotRecovered},
    replicas::{ReplicaError, open_replicas},
    submit::new_run_id,
    submit_error::SubmitError,
};
pub use serve::{
    server::{Coordinator, ServeError, Settings, StartError},
    token::{Token, TokenError},
};
pub use whimbrel_core::Timing;
