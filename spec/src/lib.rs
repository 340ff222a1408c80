//! The *run spec*: what a user writes to describe a run, in TOML.
//!
//! ```text
//!  run.toml ──▶ tree ◀── --set, --unset           each value with its position in the text
//!                │
//!                ▼
//!             reader ──▶ Mistakes: each with its position, its key and what to write instead
//!                │
//!                ▼
//!             RunSpec ──▶ to_toml ──▶ the run's directory
//! ```
//!
//! [`RunSpec::parse`] takes the text and the overrides. It returns a valid [`RunSpec`], or [`Mistakes`] with every
//! mistake at once, so that a user corrects a file in one pass. `whimbrel run` and `whimbrel submit` call it on the
//! user's file, the coordinator on the text stored with a run. Nothing here does I/O.
//!
//! The keys are described for users in docs/run-spec.md; a test in `keys.rs` keeps that page complete.
//!
//! ```
//! use whimbrel_spec::{Override, RunSpec};
//!
//! let text = r#"
//! name = "char-lm"
//! command = ["target/debug/char-lm"]
//!
//! [train]
//! steps = 2000
//! global_batch = 48
//! shards = 16
//! "#;
//! let shorter: Override = "train.steps=40".parse()?;
//! let spec = RunSpec::parse("run.toml", text, &[shorter])?;
//! assert_eq!(spec.train.steps, 40);
//! assert_eq!(spec.checkpoint.every.to_string(), "5m");
//! assert_eq!(RunSpec::parse("stored", &spec.to_toml(), &[])?, spec);
//!
//! let text = text.replace("shards = 16", "shards = 5");
//! let mistakes = RunSpec::parse("run.toml", &text, &[]).unwrap_err();
//! assert_eq!(
//!     mistakes.to_string(),
//!     "run.toml:8: train.shards: 5 does not divide global_batch (48); use 1, 2, 3, 4, 6, 8, 12, 16, 24 or 48",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at [`spec`], the types; then `parse.rs`, which reads them table by table.
//!
//! - [`spec`]: the types, with the default and the bounds of every key;
//! - [`every`]: intervals, in steps or in time; [`bandwidth`]: bytes per second; `time`: durations;
//! - [`overrides`]: `KEY=VALUE`, keys to unset and flags, from the command line;
//! - [`script`]: a Python script with a spec in its header;
//! - [`mistake`]: what can be wrong, and the messages; [`position`]: where a value was written;
//! - `keys`, `tree`, `reader`, `parse`, `settings`: from text to types; `write`: from types to text; `quote`: TOML strings
//!   and keys, and excerpts for messages.

pub mod bandwidth;
pub mod every;
mod keys;
pub mod mistake;
pub mod overrides;
mod parse;
pub mod position;
mod quote;
mod reader;
pub mod script;
mod settings;
pub mod spec;
mod time;
mod tree;
mod write;

pub use bandwidth::{Bandwidth, InvalidBandwidth};
pub use every::{CheckpointEvery, Every, InvalidEvery};
pub use mistake::{Mistake, Mistakes, Problem};
pub use overrides::{InvalidOverride, Override};
pub use position::Position;
pub use script::Script;
pub use spec::{Checkpoint, Evaluate, Keep, Mode, OnNonfinite, ReductionSpec, RunSpec, Train, Workers};
pub use time::InvalidTime;
