//! Requests to an object store: deadlines, retries, pace and buffers.

pub mod buffers;
pub mod folder;
pub mod pace;
pub mod pacing;
pub mod retry;
pub mod slow_down;
pub mod task;
