//! The `whimbrel` command.
//!
//! - [`args`]: the commands and their flags; [`config`]: the settings files below them.
//! - [`run`]: `whimbrel run`, a whole run on this machine: coordinator and agent in this process, workers beside it.
//! - [`coordinator`], [`agent`]: the two servers. [`token`]: what callers from beyond loopback show.
//! - [`submit`], [`runs`], [`logs`], [`watch`]: what is asked of a coordinator, over [`client`].
//! - [`checkpoint`]: a run's checkpoints, straight from its store. [`store_errors`]: what its errors come to.
//! - [`screen`]: what is seen of a run: a bar, lines, or JSON. [`mod@print`]: the only way to stdout and stderr.
//! - [`mod@size`]: sizes as people write them.
//! - [`exit`]: exit codes, and how a failure is reported.

mod agent;
mod args;
mod checkpoint;
mod client;
mod config;
mod coordinator;
mod exit;
mod log;
mod logs;
mod paths;
mod print;
mod run;
mod runs;
mod screen;
mod signals;
mod size;
mod spec_file;
mod store_errors;
mod submit;
mod token;
mod watch;

use std::{io, process::ExitCode, time::Duration};

use clap::Parser;
use indicatif::MultiProgress;
use tokio::runtime::Runtime;

use crate::{
    args::{Args, Command},
    config::Config,
    exit::{Code, Failure},
};

/// For what still runs on blocking threads at the end, such as a read from a slow disk.
const LINGER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    let bars = MultiProgress::new();
    log::start(&args.command, args.verbose, bars.clone());
    match start(args, &bars) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

fn start(args: Args, bars: &MultiProgress) -> Result<Code, Failure> {
    let config = Config::load(args.config.as_deref()).map_err(Failure::bad_input)?;
    let runtime = Runtime::new().map_err(Failure::unexpected)?;
    let ended = runtime.block_on(execute(args.command, config, bars));
    runtime.shutdown_timeout(LINGER);
    ended
}

async fn execute(command: Command, config: Config, bars: &MultiProgress) -> Result<Code, Failure> {
    let client = &config.client;
    match command {
        Command::Run(args) => Box::pin(run::run(args, client, bars)).await,
        Command::Coordinator(args) => Box::pin(coordinator::serve(args, config.coordinator)).await,
        Command::Agent(args) => Box::pin(agent::run(args, config.agent)).await,
        Command::Submit(args) => submit::submit(args, client, bars).await,
        Command::Runs(args) => runs::list(args, client).await.and_then(told),
        Command::Status(args) => runs::status(args, client).await.and_then(told),
        Command::Logs(args) => logs::logs(args, client).await.and_then(told),
        Command::Watch(args) => watch::watch(args, client, bars).await,
        Command::Stop(args) => runs::stop(args, client).await,
        Command::Cancel(args) => runs::cancel(args, client).await,
        Command::Checkpoint(command) => checkpoint::checkpoint(command, &config, bars).await.and_then(told),
    }
}

/// The command came to its end, and not all that it had to tell arrived.
#[derive(Debug, thiserror::Error)]
#[error("the command has done its work, but what it prints could not all be written")]
struct NotTold(#[source] &'static io::Error);

/// Whoever gives a command for what it prints learns that this is not all of it. A run does not fail of that.
fn told(code: Code) -> Result<Code, Failure> {
    match print::lost() {
        Some(error) => {
            let code = if code == Code::Done { Code::BadInput } else { code };
            Err(Failure::new(code, NotTold(error)))
        }
        None => Ok(code),
    }
}
