//! `whimbrel checkpoint export` and `import`.

use std::{num::NonZero, path::PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use whimbrel_plan::RunId;

use super::RunOptions;
use crate::{
    args::{at_least_one, overrides::OverrideArgs},
    size::Size,
};

/// Write a checkpoint as a folder of safetensors files that other programs can load.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder holds model.safetensors, or several files and model.safetensors.index.json, in the layout of Hugging Face's
libraries; and the run spec as run.toml.

Examples:
  whimbrel checkpoint export runs/char-lm-k3x9qa@2000 exported
  whimbrel checkpoint export runs/char-lm-k3x9qa exported --without 'adam.*' --rename blocks.=model.layers.

Exit codes: 0 exported, 2 bad input, 3 the store cannot be reached, 4 bytes are damaged or missing, 75 interrupted: the
folder is unchanged.")]
pub(crate) struct ExportArgs {
    /// The run: the URI or path of its directory, or its id in --store. @STEP selects the checkpoint after that step;
    /// the default is the newest.
    #[arg(value_name = "RUN[@STEP]")]
    pub(crate) run: String,

    /// The folder to write: new or empty.
    #[arg(value_name = "FOLDER", value_parser = PathBufValueParser::new().try_map(local_path))]
    pub(crate) folder: PathBuf,

    /// Limit of the bytes of tensors in a file; a larger tensor has a file of its own.
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    pub(crate) shard_size: Size,

    #[command(flatten)]
    pub(crate) tensors: Tensors,

    /// Replace the model in a folder that is not empty; other files there stay.
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}

/// Make a checkpoint of a folder of safetensors files, from which a run continues.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The checkpoint is the first of a new run in a store, or is added to a stopped run. `whimbrel run --resume` continues from
it.

Examples:
  whimbrel checkpoint import exported s3://lab-east/runs
  whimbrel checkpoint import llama-3-8b runs --spec run.toml --samples 120000
  whimbrel checkpoint import exported runs/char-lm-k3x9qa --step 2000

The defaults of --spec, --step and --samples come from the folder, if `checkpoint export` wrote it.

A new run has the replicas of its spec: the import tests each of them, and the coordinator fills them once the run
continues. To have none, add --set 'checkpoint.replicas=[]'. The run's store is the one imported into, whatever the spec
names.

Exit codes: 0 imported, 2 bad input, 3 a store cannot be reached, 4 the run's log is damaged, 75 interrupted: the
same command with --run continues.")]
pub(crate) struct ImportArgs {
    /// The folder, or one safetensors file.
    #[arg(value_name = "FOLDER", value_parser = PathBufValueParser::new().try_map(local_path))]
    pub(crate) folder: PathBuf,

    /// A store, for a new run; or a stopped run, by its URI, path, or id in --store.
    #[arg(value_name = "STORE_OR_RUN")]
    pub(crate) into: String,

    /// The run spec of a new run [default: run.toml in the folder].
    #[arg(long, value_name = "PATH")]
    pub(crate) spec: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,

    /// The id of a new run [default: the spec's name and six random characters]. The id of an interrupted import continues
    /// it.
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<RunId>,

    /// Number of steps applied to the state; the run continues with the next [default: as the folder says, or 0].
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u64>,

    /// Number of samples in the data set of the run [default: as the folder says].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u64>>)]
    pub(crate) samples: Option<NonZero<u64>>,

    #[command(flatten)]
    pub(crate) tensors: Tensors,

    /// Add to a run that was interrupted and not stopped. If a coordinator still runs it, that coordinator is fenced.
    #[arg(long)]
    pub(crate) take_over: bool,

    #[command(flatten)]
    pub(crate) options: RunOptions,
}

/// Which tensors to export or import, and their new names.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Tensors {
    /// Take only tensors whose name matches, e.g. 'model.*'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) only: Vec<String>,

    /// Leave out tensors whose name matches, e.g. 'adam.*'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) without: Vec<String>,

    /// Replace FROM at the start of names by TO; may be repeated, and the first match counts.
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    pub(crate) rename: Vec<(String, String)>,
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
