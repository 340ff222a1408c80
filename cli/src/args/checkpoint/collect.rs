//! `whimbrel checkpoint collect`.

use std::{num::NonZero, time::Duration};

use whimbrel_spec::Every;

use super::RunOptions;
use crate::args::at_least_one;

/// Delete checkpoints that are not to be kept, and packs that no checkpoint refers to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The newest good checkpoint always stays.

Examples:
  whimbrel checkpoint collect runs/char-lm-k3x9qa --keep 1 --dry-run
  whimbrel checkpoint collect s3://lab-east/runs/char-lm-k3x9qa --keep 3 --keep-every '1000 steps'

If the manifest of a checkpoint that is to stay cannot be read, all packs stay, unless that checkpoint is marked as
damaged.

Exit codes: 0 collected, 2 bad input, a run that is not stopped, or a log or manifest of a later version, 3 a store
cannot be reached, 4 the run's log is damaged, or the manifest of a checkpoint that is to stay.")]
pub(crate) struct CollectArgs {
    /// The run: the URI or path of its directory, or its id in --store. It must be stopped or have ended.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,

    /// Number of the newest good checkpoints that stay [default: checkpoint.keep of the run's spec].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u32>>)]
    pub(crate) keep: Option<NonZero<u32>>,

    /// Also keep one checkpoint in each such interval: '1000 steps', '6h' [default: checkpoint.keep of the run's spec,
    /// unless --keep is given].
    #[arg(long, value_name = "EVERY")]
    pub(crate) keep_every: Option<Every>,

    /// Keep a pack that no checkpoint refers to for this long: a save or a copy that is in progress may need it.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) grace: Duration,

    /// Print what would be deleted; delete nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Collect in a run that is not known to be stopped. Only the holder of a run's term may delete, so this starts a
    /// term: a coordinator that still runs it is fenced, and stops.
    #[arg(long)]
    pub(crate) take_over: bool,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}
