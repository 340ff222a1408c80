//! `whimbrel checkpoint`: a run's checkpoints, straight in their store.
//!
//! - [`locate`]: which run and checkpoint an argument names; [`meter`]: how far a long command has got;
//!   [`interrupt`]: what Ctrl-C leaves;
//! - [`look`], [`verify`], [`diff`]: reading, [`stands`]: and how two directories of a run stand to each other; [`mod@copy`], [`collect`]: moving and deleting;
//! - [`export`], [`import`]: to and from the folders of other programs.

mod collect;
mod copy;
mod diff;
mod export;
mod import;
mod interrupt;
mod locate;
mod look;
mod meter;
mod stands;
mod verify;

use indicatif::MultiProgress;

use crate::{
    args::checkpoint::CheckpointCommand,
    config::Config,
    exit::{Code, Failure},
};

/// `whimbrel checkpoint …`.
pub(crate) async fn checkpoint(
    command: CheckpointCommand,
    config: &Config,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let client = &config.client;
    match command {
        CheckpointCommand::List(args) => look::list(args, client).await,
        CheckpointCommand::Show(args) => look::show(args, client).await,
        CheckpointCommand::Verify(args) => verify::verify_one(args, client, bars).await,
        CheckpointCommand::Diff(args) => diff::diff(args, client, bars).await,
        CheckpointCommand::Copy(args) => copy::copy(args, config, bars).await,
        CheckpointCommand::Export(args) => export::export(args, client, bars).await,
        CheckpointCommand::Import(args) => import::import(args, client, bars).await,
        CheckpointCommand::Collect(args) => collect::collect_one(args, client).await,
    }
}

/// The exit code of a command that did all but what it had to leave, given of each of those whether it is damaged. What is
/// only of a later Whimbrel wants another program.
fn incomplete(are_damaged: impl IntoIterator<Item = bool>) -> Code {
    match are_damaged.into_iter().reduce(|one, other| one || other) {
        None => Code::Done,
        Some(true) => Code::Damaged,
        Some(false) => Code::BadInput,
    }
}

/// `1 pack`, `2 packs`.
fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}
