//! The pure half of a worker: what it decides between the coordinator's requests and its peers.
//!
//! A [`Worker`] knows which generation it is a member of, which state the program holds, and what comes next. It opens
//! no socket, reads no clock and stores no tensor (its `Cargo.toml` gives it no means to). Two drivers run it: the
//! worker crate's session, over real sockets, and the simulation in `core/tests/`, over simulated ones.
//!
//! ```text
//!   coordinator ──► Requests ──┐
//!                              ▼
//!                  Worker::next(&requests) ──► Action ──► the driver does it
//!                      ▲   │                                │
//!                      │   └──► Worker::take_reports ──► coordinator
//!                      └────────── Worker::handle(Event) ◄──┘
//! ```
//!
//! A driver repeats three things:
//!
//! 1. it asks [`Worker::next`] for an [`Action`] and performs it;
//! 2. it passes the result to [`Worker::handle`] as an [`Event`];
//! 3. it sends what [`Worker::take_reports`] returns to the coordinator. Where the worker is not a member any more, it
//!    closes the connections to the peers first, so that they notice at once.
//!
//! [`Requests`] is a separate value because it has a separate writer: the thread that reads the control stream updates
//! it, and the training thread reads it where it can act.
//!
//! Where to start reading:
//!
//! - `action.rs`, `event.rs`, `report.rs`: everything that goes in and comes out;
//! - `worker.rs`: [`Worker::next`] decides what comes next, [`Worker::handle`] takes a result;
//! - `phase.rs`: the phases of a membership, and the tasks of a step boundary in their order;
//! - `requests.rs`: what the coordinator asked, and which requests are out of date;
//! - `note.rs`: what the members agree on in a step's all-reduce, without an RPC;
//! - `schedule.rs`: the steps after which the run is evaluated and saved.

mod action;
mod event;
mod note;
mod phase;
mod report;
mod requests;
mod schedule;
mod worker;

pub use action::Action;
pub use event::Event;
pub use note::{StepNote, add_parts, encode_parts};
pub use phase::{Phase, Reduced, Todo};
pub use report::{Cause, Report};
pub use requests::{Asked, End, Request, Requests};
pub use schedule::Schedule;
pub use worker::{Contradiction, Held, Worker};
