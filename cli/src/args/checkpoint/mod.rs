//! `whimbrel checkpoint`.

mod collect;
mod copy;
mod interop;
mod read;

pub(crate) use collect::CollectArgs;
pub(crate) use copy::CopyArgs;
pub(crate) use interop::{ExportArgs, ImportArgs, Tensors};
pub(crate) use read::{DiffArgs, ListArgs, ShowArgs, VerifyArgs};

/// Shows, checks, moves and converts the checkpoints of a run, directly in its store. No coordinator is needed.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CheckpointCommand {
    List(ListArgs),
    Show(ShowArgs),
    Verify(VerifyArgs),
    Diff(DiffArgs),
    Copy(CopyArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    Collect(CollectArgs),
}

/// The flags of every command here.
#[derive(Debug, clap::Args)]
pub(crate) struct RunOptions {
    /// The store of a run that is given by its id.
    #[arg(long, value_name = "URI", env = "WHIMBREL_STORE")]
    pub(crate) store: Option<String>,

    /// Print JSON, one object per line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}
