//! `whimbrel run`.

use std::{num::NonZero, path::PathBuf};

use super::{at_least_one, program::ProgramArgs};

/// Run a Python script or a run spec on this machine: coordinator and agent in this process, workers as its children.
///
/// Ctrl-C saves a checkpoint and stops; a second Ctrl-C stops at once. The same command then resumes the run. On a terminal
/// it asks first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel run examples/char-lm/run.toml
  whimbrel run train.py --steps 500 --batch 48 --workers 2 -- --lr 0.1
  whimbrel run run.toml --workers 4 --set train.steps=400 --store s3://bucket/runs --new
  whimbrel run run.toml --unset setup

Exit codes: 0 finished, 1 failed, 2 bad input, 3 the store cannot be reached, 75 stopped and resumable.")]
pub(crate) struct RunArgs {
    /// The run spec, a TOML file; or a Python script (.py), with the keys of a spec in the table [tool.whimbrel] of its
    /// header, or in flags.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,

    /// Number of workers to start [default: workers.local of the spec].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u32>>)]
    pub(crate) workers: Option<NonZero<u32>>,

    #[command(flatten)]
    pub(crate) program: ProgramArgs,

    /// The store for the run's directory: s3://…, az://…, gs://…, file://… or a path [default: checkpoint.store of the
    /// spec; for a script, else the folder runs].
    #[arg(long, value_name = "URI", env = "WHIMBREL_STORE")]
    pub(crate) store: Option<String>,

    /// Resume a run, or fail if there is none: the one with this id or URI, under the spec it was submitted with; without
    /// a name, the newest unfinished run of this spec.
    #[arg(long, value_name = "RUN", num_args = 0..=1, conflicts_with = "new")]
    pub(crate) resume: Option<Option<String>>,

    /// Start a new run, even if there is an unfinished one.
    #[arg(long)]
    pub(crate) new: bool,

    /// Print one JSON object for each event, one per line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}
