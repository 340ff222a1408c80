//! `whimbrel checkpoint`: a run's checkpoints, read and written directly in their store, without a coordinator.
//!
//! - [`locate`] finds the run and the checkpoint that an argument names;
//! - [`list`], [`show`], [`verify`], [`diff`] read; [`comparison`] compares two directories of one run;
//! - [`mod@copy`] and [`collect`] move and delete;
//! - [`export`] and [`import`] convert to and from the folders of other programs.

mod collect;
mod comparison;
mod copy;
mod diff;
mod export;
mod import;
mod list;
mod locate;
mod show;
mod verify;

use indicatif::MultiProgress;

use crate::{
    args::checkpoint::CheckpointCommand,
    config::Config,
    exit::{Code, Failure},
};

/// Executes `whimbrel checkpoint …`.
pub(crate) async fn execute(
    command: CheckpointCommand,
    config: &Config,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let client = &config.client;
    match command {
        CheckpointCommand::List(args) => list::list(args, client).await,
        CheckpointCommand::Show(args) => show::show(args, client).await,
        CheckpointCommand::Verify(args) => verify::verify(args, client, bars).await,
        CheckpointCommand::Diff(args) => diff::diff(args, client, bars).await,
        CheckpointCommand::Copy(args) => copy::copy(args, config, bars).await,
        CheckpointCommand::Export(args) => export::export(args, client, bars).await,
        CheckpointCommand::Import(args) => import::import(args, client, bars).await,
        CheckpointCommand::Collect(args) => collect::collect(args, client).await,
    }
}

/// The exit code of a command that skipped some checkpoints, given for each whether it is damaged. One that is not damaged
/// was written by a later version of Whimbrel.
fn exit_code(skipped_damaged: impl IntoIterator<Item = bool>) -> Code {
    match skipped_damaged.into_iter().reduce(|one, other| one || other) {
        None => Code::Done,
        Some(true) => Code::Damaged,
        Some(false) => Code::BadInput,
    }
}
