//! What each command does, one file a command. Its flags are in [`crate::args`], what it prints in [`crate::output`].

mod agent;
mod cancel;
mod checkpoint;
mod coordinator;
mod logs;
mod run;
mod runs;
mod status;
mod stop;
mod submit;
mod watch;

use std::io;

use indicatif::MultiProgress;

use crate::{
    args::Command,
    config::Config,
    exit::{Code, Failure},
    output::print,
};

/// Executes a command. `bars` is where progress bars are drawn.
pub(crate) async fn execute(command: Command, config: Config, bars: &MultiProgress) -> Result<Code, Failure> {
    let client = &config.client;
    match command {
        Command::Run(args) => Box::pin(run::run(args, client, bars)).await,
        Command::Coordinator(args) => Box::pin(coordinator::serve(args, config.coordinator)).await,
        Command::Agent(args) => Box::pin(agent::run(args, config.agent)).await,
        Command::Submit(args) => submit::submit(args, client, bars).await,
        Command::Runs(args) => runs::runs(args, client).await.and_then(unless_lost),
        Command::Status(args) => status::status(args, client).await.and_then(unless_lost),
        Command::Logs(args) => logs::logs(args, client).await.and_then(unless_lost),
        Command::Watch(args) => watch::watch(args, client, bars).await,
        Command::Stop(args) => stop::stop(args, client).await,
        Command::Cancel(args) => cancel::cancel(args, client).await,
        Command::Checkpoint(command) => {
            checkpoint::execute(command, &config, bars).await.and_then(unless_lost)
        }
    }
}

/// The command is done, but part of its output was lost.
#[derive(Debug, thiserror::Error)]
#[error("the command has done its work, but its output could not be written completely")]
struct OutputLost(#[source] &'static io::Error);

/// Fails where stdout did not take all of the output of a command whose output is its purpose. `run`, `submit` and
/// `watch` do not fail for that: a run is worth more than its screen.
fn unless_lost(code: Code) -> Result<Code, Failure> {
    match print::lost() {
        Some(error) => {
            let code = if code == Code::Done { Code::BadInput } else { code };
            Err(Failure::new(code, OutputLost(error)))
        }
        None => Ok(code),
    }
}
