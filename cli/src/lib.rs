//! The `whimbrel` command, as a library: `main.rs` calls `main`, and so does the command of the Python package.
//!
//! | module | holds |
//! | --- | --- |
//! | `args` | the commands, their flags and their help texts |
//! | `config`, `paths`, `token` | settings files, the user's folders, the token of a coordinator |
//! | `spec_file`, `interpreter` | a run spec from a file or a script; the script's Python |
//! | `client` | calls to a coordinator |
//! | `commands` | what each command does, one file a command |
//! | `output` | what is printed: text, progress bars, JSON lines |
//! | `exit` | exit codes, and how a failure is reported |
//!
//! Modules depend on each other downwards only: `commands` may use all others, `output` none of `commands` and `client`.

mod args;
mod client;
mod commands;
mod config;
mod exit;
mod interpreter;
mod output;
mod paths;
mod signals;
mod size;
mod spec_file;
mod token;

use std::{ffi::OsString, time::Duration};

use clap::Parser;
use indicatif::MultiProgress;
use tokio::runtime::Runtime;

use crate::{
    args::Args,
    config::Config,
    exit::{Code, Failure},
};

/// At the end, work on blocking threads has this long to finish, such as a read from a slow disk.
const LINGER: Duration = Duration::from_secs(1);

/// Executes the command that `words` name, the first of which is the command's own name, and returns the exit code. Ends
/// the process itself where they name none, and for `--help`.
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    let args = Args::parse_from(words);
    let bars = MultiProgress::new();
    output::log::start(args.command.is_server(), args.verbose, bars.clone());
    match start(args, &bars) {
        Ok(code) => code as u8,
        Err(failure) => failure.report() as u8,
    }
}

fn start(args: Args, bars: &MultiProgress) -> Result<Code, Failure> {
    let config = Config::load(args.config.as_deref()).map_err(Failure::bad_input)?;
    let runtime = Runtime::new().map_err(Failure::unexpected)?;
    let ended = runtime.block_on(commands::execute(args.command, config, bars));
    runtime.shutdown_timeout(LINGER);
    ended
}
