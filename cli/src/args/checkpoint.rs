//! `whimbrel checkpoint`.

use std::{num::NonZero, path::PathBuf, time::Duration};

use clap::builder::{PathBufValueParser, TypedValueParser};
use whimbrel_plan::RunId;
use whimbrel_spec::{Bandwidth, Every, Override};

use super::at_least_one;
use crate::size::Size;

/// Looks at, moves and converts the checkpoints of a run, straight in its store: no coordinator is needed.
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

/// Lists a run's checkpoints.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel checkpoint list runs/char-lm-k3x9qa
  whimbrel checkpoint list char-lm-k3x9qa --store s3://bucket/runs
  whimbrel checkpoint list az://labwest/runs/char-lm-k3x9qa --against s3://lab-east/runs/char-lm-k3x9qa

Exit codes: 0 listed, 2 no such run, or one of a later Whimbrel, 3 the store cannot be reached, 4 the run's log is
damaged.")]
pub(crate) struct ListArgs {
    /// The run: the URI or path of its directory, or its id in --store.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,

    /// The same run in another store: says which of the two is ahead, and what the other lacks.
    #[arg(long, value_name = "RUN")]
    pub(crate) against: Option<String>,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Shows what a checkpoint holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  whimbrel checkpoint show runs/char-lm-k3x9qa@2000

Exit codes: 0 shown, 2 no such checkpoint, or one of a later Whimbrel, 3 the store cannot be reached, 4 the run's log or
the manifest is damaged.")]
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

Exit codes: 0 every byte is good, 2 no such checkpoint, or one of a later Whimbrel, 3 the store cannot be reached, 4 bytes
are damaged or missing.")]
pub(crate) struct VerifyArgs {
    /// The run: the URI or path of its directory, or its id in --store; with @STEP the checkpoint after that step,
    /// otherwise the newest.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) run: String,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Tells how two checkpoints differ, tensor by tensor, in elements that differ and the largest difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Wherever the two are, and however they are packed. What hashes say is the same is not read.

Examples:
  whimbrel checkpoint diff runs/char-lm-k3x9qa@200 runs/char-lm-k3x9qa@400
  whimbrel checkpoint diff s3://lab-east/runs/char-lm-k3x9qa az://labwest/runs/char-lm-k3x9qa

Exit codes: 0 the same bits, 1 they differ, 2 no such checkpoint, or one of a later Whimbrel, 3 a store cannot be reached,
4 bytes are damaged or missing, 75 interrupted.")]
pub(crate) struct DiffArgs {
    /// One checkpoint: a run's URI, path, or id in --store; with @STEP the one after that step, otherwise the newest.
    #[arg(value_name = "A[@STEP]")]
    pub(crate) a: String,

    /// The other.
    #[arg(value_name = "B[@STEP]")]
    pub(crate) b: String,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Copies a run's checkpoints into another store, where the copy can be resumed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Says first what will move and what leaving the store costs. What is there already is skipped, so a copy that was cut off
goes on where it was; every pack that moves is verified, and each checkpoint counts in the copy once all of it is there.
Packs that are there are not read again: `whimbrel checkpoint verify` does that, and one that it calls damaged is copied
anew once it is deleted.

Examples:
  whimbrel checkpoint copy s3://lab-east/runs/char-lm-k3x9qa az://labwest/runs
  whimbrel checkpoint copy runs/char-lm-k3x9qa@2000 gs://lab/runs --bandwidth '50 MB/s'
  whimbrel checkpoint copy char-lm-k3x9qa gs://lab/runs --newest --dry-run

Prices are what clouds list for data that leaves them, and can be set in the settings file, in dollars per GB:
  [egress]
  aws = 0.05
  \"s3://lab-east\" = 0.02

Exit codes: 0 copied, 2 bad input, or only checkpoints of a later Whimbrel were left out, 3 a store cannot be
reached, 4 damaged checkpoints were left out, 75 cut off, or another copy took over: the same command goes on.")]
pub(crate) struct CopyArgs {
    /// The run: the URI or path of its directory, or its id in --store; with @STEP only the checkpoint after that step.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) source: String,

    /// Where to: a store, in which the run keeps its name; or the URI of the run's directory there.
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,

    /// Copies the newest checkpoint alone.
    #[arg(long)]
    pub(crate) newest: bool,

    /// Says what would move and what it would cost, and moves nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// The most bytes a second to write, e.g. '100 MB/s' [default: as many as there can be].
    #[arg(long, value_name = "RATE")]
    pub(crate) bandwidth: Option<Bandwidth>,

    /// The most packs to send at a time [default: 16, or fewer where more do not pay].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<usize>>)]
    pub(crate) concurrency: Option<NonZero<usize>>,

    /// Does not ask, whatever it costs.
    #[arg(long, short)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Writes a checkpoint as a folder of safetensors files that other programs load.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder holds model.safetensors, or several files with model.safetensors.index.json, as Hugging Face's libraries have
them; and the run spec as run.toml.

Examples:
  whimbrel checkpoint export runs/char-lm-k3x9qa@2000 exported
  whimbrel checkpoint export runs/char-lm-k3x9qa exported --without 'adam.*' --rename blocks.=model.layers.

Exit codes: 0 exported, 2 bad input, 3 the store cannot be reached, 4 bytes are damaged or missing, 75 interrupted: the
folder is as it was.")]
pub(crate) struct ExportArgs {
    /// The run: the URI or path of its directory, or its id in --store; with @STEP the checkpoint after that step,
    /// otherwise the newest.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) run: String,

    /// The folder to write: new or empty.
    #[arg(value_name = "FOLDER", value_parser = PathBufValueParser::new().try_map(local_path))]
    pub(crate) folder: PathBuf,

    /// The most bytes of tensors in a file; a larger tensor has one to itself.
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    pub(crate) shard_size: Size,

    #[command(flatten)]
    pub(crate) tensors: Tensors,

    /// Replaces the model in a folder that is not empty; other files there stay.
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Makes a checkpoint of a folder of safetensors files, from which a run goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The checkpoint is that of a new run in a store, or is added to a run that is stopped; `whimbrel run --resume` goes on
from it.

Examples:
  whimbrel checkpoint import exported s3://lab-east/runs
  whimbrel checkpoint import llama-3-8b runs --spec run.toml --samples 120000
  whimbrel checkpoint import exported runs/char-lm-k3x9qa --step 2000

What --spec, --step and --samples do not say comes from the folder, if `checkpoint export` wrote it.

A new run has its spec's replicas: each is tried out first, and kept in step once the run goes on. Its store is the one
imported into, whichever the spec names. Without any replicas: --set 'checkpoint.replicas=[]'.

Exit codes: 0 imported, 2 bad input, 3 a store cannot be reached, 4 the run's log is damaged, 75 cut off: the same
command with --run goes on.")]
pub(crate) struct ImportArgs {
    /// The folder, or one safetensors file.
    #[arg(value_name = "FOLDER", value_parser = PathBufValueParser::new().try_map(local_path))]
    pub(crate) folder: PathBuf,

    /// Where to: a store, for a new run; or a stopped run, by its URI, path, or id in --store.
    #[arg(value_name = "STORE_OR_RUN")]
    pub(crate) into: String,

    /// The run spec of a new run [default: run.toml in the folder].
    #[arg(long, value_name = "PATH")]
    pub(crate) spec: Option<PathBuf>,

    /// Sets a key of a new run's spec, e.g. train.steps=4000; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<Override>,

    /// The id of a new run [default: the spec's name and six random characters]. That of an import which was cut off
    /// goes on with it.
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<RunId>,

    /// Steps applied to the state: the run goes on with the next [default: by the folder, or 0].
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u64>,

    /// Samples in the data set that the run is trained on [default: by the folder].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u64>>)]
    pub(crate) samples: Option<NonZero<u64>>,

    #[command(flatten)]
    pub(crate) tensors: Tensors,

    /// Adds to a run that broke off without being stopped. A coordinator that works on it all the same is fenced.
    #[arg(long)]
    pub(crate) take_over: bool,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Deletes checkpoints that are not to be kept, and packs that nothing refers to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The newest whole checkpoint always stays.

Examples:
  whimbrel checkpoint collect runs/char-lm-k3x9qa --keep 1 --dry-run
  whimbrel checkpoint collect s3://lab-east/runs/char-lm-k3x9qa --keep 3 --keep-every '1000 steps'

As long as the manifest of a checkpoint that is to stay, and is not marked as damaged, cannot be read, all packs stay.

Exit codes: 0 collected, 2 bad input, a run that is not stopped, or a log or manifest of a later Whimbrel, 3 a store
cannot be reached, 4 the run's log is damaged, or the manifest of a checkpoint that is to stay.")]
pub(crate) struct CollectArgs {
    /// The run: the URI or path of its directory, or its id in --store. It must be stopped or have ended.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,

    /// How many of the newest whole checkpoints stay [default: checkpoint.keep of the run's spec].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u32>>)]
    pub(crate) keep: Option<NonZero<u32>>,

    /// Besides these, one every so many steps, or every so long: '1000 steps', '6h' [default: checkpoint.keep of the
    /// run's spec, unless --keep is given].
    #[arg(long, value_name = "EVERY")]
    pub(crate) keep_every: Option<Every>,

    /// How long a pack stays that no checkpoint names: it may belong to a save or a copy under way.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) grace: Duration,

    /// Says what would go, and deletes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Collects in a run that is not known to be stopped. Only the holder of a run's term may delete, so this takes
    /// it: a coordinator that works on the run is fenced, and stops.
    #[arg(long)]
    pub(crate) take_over: bool,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Which tensors, and their names on the other side.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Tensors {
    /// Only tensors whose name matches, e.g. 'model.*'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) only: Vec<String>,

    /// No tensors whose name matches, e.g. 'adam.*'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) without: Vec<String>,

    /// Names that start with FROM then start with TO; may be repeated, the first that fits counts.
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    pub(crate) rename: Vec<(String, String)>,
}

/// What they have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The store of a run that is given by its id.
    #[arg(long, value_name = "URI", env = "WHIMBREL_STORE")]
    pub(crate) store: Option<String>,

    /// Writes JSON, one object a line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('=').ok_or("write FROM=TO, e.g. model.=transformer.")?;
    Ok((from.to_owned(), to.to_owned()))
}

/// A path on this machine, and not a URI.
fn local_path(path: PathBuf) -> Result<PathBuf, &'static str> {
    let is_uri = path.to_str().is_some_and(|text| text.contains("://") || text.starts_with("file:"));
    if is_uri { Err("write the path of a folder on this machine, not a URI") } else { Ok(path) }
}
