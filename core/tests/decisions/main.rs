//! The core's decisions, one story a test.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where the core decides otherwise")]

mod checkpoints;
mod ending;
mod membership;
mod setup;
mod story;
