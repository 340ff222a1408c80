//! `whimbrel checkpoint`.

/// Looks at the checkpoints of a run, straight in its store: no coordinator is needed.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CheckpointCommand {
    List(ListArgs),
    Show(ShowArgs),
    Verify(VerifyArgs),
}

/// Lists a run's checkpoints.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel checkpoint list runs/char-lm-k3x9qa
  whimbrel checkpoint list char-lm-k3x9qa --store s3://bucket/runs")]
pub(crate) struct ListArgs {
    /// The run: the URI or path of its directory, or its id in --store.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Shows what a checkpoint holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel checkpoint show runs/char-lm-k3x9qa@2000")]
pub(crate) struct ShowArgs {
    /// The run: the URI or path of its directory, or its id in --store; with @STEP the checkpoint after that step,
    /// otherwise the newest.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) run: String,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Reads every byte of a checkpoint, compares it with its hash, and prints the digest of the state.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  whimbrel checkpoint verify s3://bucket/runs/char-lm-k3x9qa@2000

Exit codes: 0 every byte is good, 2 no such checkpoint, 3 the store cannot be reached, 4 bytes are damaged or missing.")]
pub(crate) struct VerifyArgs {
    /// The run: the URI or path of its directory, or its id in --store; with @STEP the checkpoint after that step,
    /// otherwise the newest.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) run: String,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// What the three have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The store of a run that is given by its id.
    #[arg(long, value_name = "URI", env = "WHIMBREL_STORE")]
    pub(crate) store: Option<String>,

    /// Writes JSON, one object a line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}
