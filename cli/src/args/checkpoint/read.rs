//! `whimbrel checkpoint list`, `show`, `verify` and `diff`, which change nothing.

use super::RunOptions;

/// List a run's checkpoints.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel checkpoint list runs/char-lm-k3x9qa
  whimbrel checkpoint list char-lm-k3x9qa --store s3://bucket/runs
  whimbrel checkpoint list az://labwest/runs/char-lm-k3x9qa --against s3://lab-east/runs/char-lm-k3x9qa

Exit codes: 0 listed, 2 no such run, or one of a later version, 3 the store cannot be reached, 4 the run's log is
damaged.")]
pub(crate) struct ListArgs {
    /// The run: the URI or path of its directory, or its id in --store.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,

    /// The same run in another store: also print which of the two is ahead, and what RUN lacks.
    #[arg(long, value_name = "RUN")]
    pub(crate) against: Option<String>,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}

/// Show the tensors and other contents of a checkpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  whimbrel checkpoint show runs/char-lm-k3x9qa@2000

Exit codes: 0 shown, 2 no such checkpoint, or one of a later version, 3 the store cannot be reached, 4 the run's log or
the manifest is damaged.")]
pub(crate) struct ShowArgs {
    /// The run: the URI or path of its directory, or its id in --store. @STEP selects the checkpoint after that step;
    /// the default is the newest.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) run: String,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}

/// Read every byte of a run's checkpoints, compare it with its hash, and print the digests of the states.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A pack that several checkpoints share is read once. A checkpoint that shares packs with a newer one is verified without
the digest of its state; @STEP prints that. Quarantined checkpoints are read only with @STEP.

Examples:
  whimbrel checkpoint verify s3://bucket/runs/char-lm-k3x9qa
  whimbrel checkpoint verify s3://bucket/runs/char-lm-k3x9qa@2000

Exit codes: 0 every byte is good, 2 no such checkpoint, or one of a later version, 3 the store cannot be reached, 4 bytes
are damaged or missing.")]
pub(crate) struct VerifyArgs {
    /// The run: the URI or path of its directory, or its id in --store. @STEP selects the checkpoint after that step;
    /// the default is all checkpoints.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) run: String,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}

/// Compare two checkpoints, tensor by tensor: the elements that differ and the largest difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The two may be in different stores and packed differently. Data that has the same hash in both is not read.

Examples:
  whimbrel checkpoint diff runs/char-lm-k3x9qa@200 runs/char-lm-k3x9qa@400
  whimbrel checkpoint diff s3://lab-east/runs/char-lm-k3x9qa az://labwest/runs/char-lm-k3x9qa

Exit codes: 0 the same bits, 1 they differ, 2 no such checkpoint, or one of a later version, 3 a store cannot be reached,
4 bytes are damaged or missing, 75 interrupted.")]
pub(crate) struct DiffArgs {
    /// The first checkpoint: the URI, path, or id in --store of its run. @STEP selects the checkpoint after that step; the
    /// default is the newest.
    #[arg(value_name = "A[@STEP]")]
    pub(crate) a: String,

    /// The second checkpoint, named in the same way.
    #[arg(value_name = "B[@STEP]")]
    pub(crate) b: String,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}
