//! What the core decides, told as stories.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a story that goes another way is to stop there"
)]

mod checkpoints;
mod ending;
mod membership;
mod setup;
mod story;
