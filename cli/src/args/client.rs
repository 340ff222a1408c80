//! The commands that ask a coordinator.

use std::{env, path::PathBuf};

use whimbrel_spec::Override;
use whimbrel_store::shell;

use whimbrel_client::Address;

/// How to reach the coordinator.
#[derive(Debug, clap::Args)]
pub(crate) struct AccessArgs {
    /// Where the coordinator listens [default: 127.0.0.1:7070].
    #[arg(long, value_name = "HOST:PORT", env = "WHIMBREL_COORDINATOR", help_heading = "Coordinator")]
    pub(crate) coordinator: Option<Address>,

    /// The file that holds its token [default: WHIMBREL_TOKEN, or ~/.config/whimbrel/token if there is one].
    #[arg(long, value_name = "PATH", env = "WHIMBREL_TOKEN_FILE", help_heading = "Coordinator")]
    pub(crate) token_file: Option<PathBuf>,
}

impl AccessArgs {
    /// What a printed command about the same coordinator has to repeat, with a space before it: what flags said, and not
    /// a variable.
    pub(crate) fn repeated(&self) -> String {
        let coordinator = self.coordinator.as_ref().map(Address::to_string);
        let token_file = self.token_file.as_ref().map(|path| path.display().to_string());
        let flags = [
            ("--coordinator", "WHIMBREL_COORDINATOR", coordinator),
            ("--token-file", "WHIMBREL_TOKEN_FILE", token_file),
        ];
        let mut repeated = String::new();
        for (flag, variable, value) in flags {
            if let Some(value) = value.filter(|value| env::var(variable).as_ref() != Ok(value)) {
                repeated.push_str(&format!(" {flag} {}", shell::word(&value)));
            }
        }
        repeated
    }
}

/// Submits a run to a coordinator.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel submit run.toml --set train.steps=400 --watch
  whimbrel submit --resume char-lm-k3x9qa")]
pub(crate) struct SubmitArgs {
    /// The run spec, a TOML file.
    #[arg(value_name = "SPEC", required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) spec: Option<PathBuf>,

    /// Sets a key of the spec, e.g. train.steps=40; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume")]
    pub(crate) set: Vec<Override>,

    /// Takes up the run of this id, in place of a new one.
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<String>,

    /// Stays, and shows what happens to the run until it ends.
    #[arg(long)]
    pub(crate) watch: bool,

    /// Writes JSON, one object a line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Lists the coordinator's runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel runs --coordinator 10.0.0.5:7070")]
pub(crate) struct RunsArgs {
    /// Writes JSON, one object a line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Shows how a run stands, and its workers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel status char-lm-k3x9qa")]
pub(crate) struct StatusArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Writes JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Shows what a run's workers and its setup printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel logs char-lm-k3x9qa --worker 2 --follow")]
pub(crate) struct LogsArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Goes on with new lines until the run ends.
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Only the lines of this worker, e.g. 1 for w1; 0 for setup.
    #[arg(long, value_name = "N")]
    pub(crate) worker: Option<u64>,

    /// Writes JSON, one object a line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Shows what happens to a run until it ends. Ctrl-C ends the watching, not the run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  whimbrel watch char-lm-k3x9qa

Exit codes: 0 finished, 1 failed or cancelled, 2 no such run, 3 coordinator out of reach, 75 stopped and resumable.")]
pub(crate) struct WatchArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Writes one JSON object a line and event on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Has a run save a checkpoint and stop; `whimbrel submit --resume` takes it up again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel stop char-lm-k3x9qa")]
pub(crate) struct StopArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Writes JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Ends a run for good.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel cancel char-lm-k3x9qa")]
pub(crate) struct CancelArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Writes JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}
