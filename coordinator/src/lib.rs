//! The gRPC coordinator: the server that decides, and keeps nothing that matters outside the store.
//!
//! ```text
//!   clients ──┐                         ┌── recorder (one a run): the run's log and checkpoints, in order
//!   agents  ──┼─ services ─► driver ────┤
//!   workers ──┘   (gRPC)     │   ▲      └── output (one a run): what its workers print
//!                            ▼   │
//!                     whimbrel_core::Core: events in, commands out
//! ```
//!
//! - [`Coordinator`] (`server`) binds, serves and stops;
//! - `services` turns calls and messages into `Input`s, and refuses what makes no sense at the border;
//! - `driver` is the one task that owns the core: it feeds it, and executes what it commands;
//! - `hosted` is what the driver keeps of a run beside the core: its links, its slices, its watchers;
//! - `opening` submits and resumes runs, `adoption` takes up those in the store; `facts` is what their specs and logs say to
//!   the core and the store;
//! - `recorder` is the one task that holds a run's term, and so writes its log; `examination` tells it whether a
//!   checkpoint is damaged that a worker could not read;
//! - `replicas` opens the other stores of a run and compares their logs; `replication` keeps them in step behind it,
//!   `standing` says how they stand;
//! - `output` keeps what workers print;
//! - `wire` says to watchers what the core has to say;
//! - [`Token`] is what callers from beyond loopback must show.

mod driver;
mod events;
mod open;
mod record;
mod serve;

pub use open::take_over::{SubmitError, new_run_id};
pub use open::replicas::{NotFetched, ReplicaError, WentOn, submitted as settle_stores};
pub use serve::server::{Coordinator, ServeError, Settings, StartError};
pub use serve::token::{Token, TokenError};
pub use whimbrel_core::Timing;
