//! Requests to an object store. Everything in this crate that talks to a store does so through this folder.
//!
//! Start with [`Folder`]: its methods are the requests. Each request has a deadline, is retried by the [`RetryPolicy`]
//! where that is safe, and fails with a [`StoreError`] that names the object. Uploads and downloads of packs are subject
//! to [`FlowControl`](flow_control::FlowControl).
//!
//! | file | is |
//! | --- | --- |
//! | `folder` | the requests |
//! | `error` | the error of every request |
//! | `retry` | which failures are retried, how often and when |
//! | `slow_down` | the HTTP layer that recognises "slow down" (429, 503) |
//! | `flow_control`, `concurrency_limit` | how many transfers run at a time; the bandwidth limit |
//! | `limits` | what callers allow a save or a restore |
//! | `buffers` | buffers for blocks, reused |
//! | `task` | tasks that end with their owner |
//! | `temp_files` | unfinished files that a killed program left in a local folder |

mod buffers;
mod concurrency_limit;
mod error;
mod flow_control;
mod folder;
mod limits;
mod retry;
mod slow_down;
pub(crate) mod task;
pub(crate) mod temp_files;

pub use error::StoreError;
pub use limits::Limits;
pub use retry::RetryPolicy;
pub use slow_down::SlowDown;

pub(crate) use buffers::Buffer;
pub(crate) use flow_control::{Direction, Permit};
pub(crate) use folder::{Created, Folder, Listed, random_name};
pub(crate) use retry::Failure;
pub(crate) use slow_down::SlowDownConnector;
