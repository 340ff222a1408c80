//! `whimbrel checkpoint copy`.

use std::num::NonZero;

use whimbrel_spec::Bandwidth;

use super::RunOptions;
use crate::args::at_least_one;

/// Copy a run's checkpoints to another store, where the copy can be resumed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
First prints what will move, and what the transfer out of the store costs. Packs that are already there are skipped, so a
copy that was interrupted continues. Every pack that moves is verified. A checkpoint appears in the copy when all of its
packs are there.

Packs that are already there are not read again. `whimbrel checkpoint verify` reads them; delete a pack that it reports as
damaged, and the next copy replaces it.

Examples:
  whimbrel checkpoint copy s3://lab-east/runs/char-lm-k3x9qa az://labwest/runs
  whimbrel checkpoint copy runs/char-lm-k3x9qa@2000 gs://lab/runs --bandwidth '50 MB/s'
  whimbrel checkpoint copy char-lm-k3x9qa gs://lab/runs --newest --dry-run

The default prices are the list prices of the clouds for outgoing data. The settings file can set others, in US dollars
per GB:
  [egress]
  aws = 0.05
  \"s3://lab-east\" = 0.02

Exit codes: 0 copied, 2 bad input, or only checkpoints of a later version were left out, 3 a store cannot be
reached, 4 damaged checkpoints were left out, 75 interrupted, or another copy took over: the same command continues.")]
pub(crate) struct CopyArgs {
    /// The run: the URI or path of its directory, or its id in --store. @STEP copies only the checkpoint after that step;
    /// the default is all.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) source: String,

    /// A store, in which the run keeps its id; or the URI of the run's directory there.
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,

    /// Copy only the newest checkpoint.
    #[arg(long)]
    pub(crate) newest: bool,

    /// Print what would move and what it would cost; move nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Limit of the bytes written per second, e.g. '100 MB/s' [default: none].
    #[arg(long, value_name = "RATE")]
    pub(crate) bandwidth: Option<Bandwidth>,

    /// Limit of the packs sent at the same time [default: 16, or fewer where more do not help].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<usize>>)]
    pub(crate) concurrency: Option<NonZero<usize>>,

    /// Do not ask for confirmation, whatever the copy costs.
    #[arg(long, short)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}
