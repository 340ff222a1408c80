//! `whimbrel run`.

use std::{num::NonZero, path::PathBuf};

use whimbrel_spec::Override;

use super::at_least_one;

/// Runs a run spec on this machine: coordinator and agent in this process, workers beside it.
///
/// Ctrl-C saves a checkpoint and stops; a second one stops at once. The same command then takes the run up again: on a
/// terminal it asks, otherwise it does so and says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel run examples/char-lm/run.toml
  whimbrel run run.toml --workers 4 --set train.steps=400 --store s3://bucket/runs --new

Exit codes: 0 finished, 1 failed, 2 bad input, 3 store out of reach, 75 stopped and resumable.")]
pub(crate) struct RunArgs {
    /// The run spec, a TOML file.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,

    /// How many workers to start [default: workers.local of the spec].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u32>>)]
    pub(crate) workers: Option<NonZero<u32>>,

    /// Sets a key of the spec, e.g. train.steps=40; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<Override>,

    /// Where the run's directory goes: s3://…, az://…, gs://…, file://… or a path [default: checkpoint.store of the
    /// spec].
    #[arg(long, value_name = "URI", env = "WHIMBREL_STORE")]
    pub(crate) store: Option<String>,

    /// Insists on taking a run up again: the one named by its id or URI, under the spec it was submitted with; without
    /// a name, the newest unfinished one of this very spec.
    #[arg(long, value_name = "RUN", num_args = 0..=1, conflicts_with = "new")]
    pub(crate) resume: Option<Option<String>>,

    /// Starts a new run, whatever is unfinished.
    #[arg(long)]
    pub(crate) new: bool,

    /// Writes one JSON object a line and event on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}
