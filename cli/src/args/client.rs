//! The commands that call a coordinator: `submit`, `runs`, `status`, `logs`, `watch`, `stop`, `cancel`.

use std::{env, path::PathBuf};

use whimbrel_client::Address;
use whimbrel_store::shell;

use super::program::ProgramArgs;

/// How to reach the coordinator.
#[derive(Debug, clap::Args)]
pub(crate) struct AccessArgs {
    /// Where the coordinator listens [default: 127.0.0.1:7070].
    #[arg(long, value_name = "HOST:PORT", env = "WHIMBREL_COORDINATOR", help_heading = "Coordinator")]
    pub(crate) coordinator: Option<Address>,

    /// The file that holds its token [default: the token in WHIMBREL_TOKEN, or ~/.config/whimbrel/token if it exists].
    #[arg(long, value_name = "PATH", env = "WHIMBREL_TOKEN_FILE", help_heading = "Coordinator")]
    pub(crate) token_file: Option<PathBuf>,
}

impl AccessArgs {
    /// The flags that a printed command must repeat to call the same coordinator, with a space before each. Values that
    /// come from a variable are left out.
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

/// Submit a run to a coordinator.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  whimbrel submit run.toml --set train.steps=400 --watch
  whimbrel submit train.py --steps 500 --batch 48
  whimbrel submit --resume char-lm-k3x9qa")]
pub(crate) struct SubmitArgs {
    /// The run spec, a TOML file; or a Python script (.py), with the keys of a spec in the table [tool.whimbrel] of its
    /// header, or in flags. Agents use the paths of the script and of its interpreter on their own machines.
    #[arg(value_name = "SPEC", required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) spec: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) program: ProgramArgs,

    /// Resume the run with this id instead of starting a new one.
    #[arg(long, value_name = "RUN", conflicts_with_all = [
        "set", "unset", "steps", "batch", "shards", "seed", "save_spec",
    ])]
    pub(crate) resume: Option<String>,

    /// Show what happens to the run until it ends.
    #[arg(long)]
    pub(crate) watch: bool,

    /// Print JSON, one object per line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// List the coordinator's runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel runs --coordinator 10.0.0.5:7070")]
pub(crate) struct RunsArgs {
    /// Print JSON, one object per line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Show the status of a run and of its workers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel status char-lm-k3x9qa")]
pub(crate) struct StatusArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Print JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Show the output of a run's workers and of its setup.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel logs char-lm-k3x9qa --worker 2 --follow")]
pub(crate) struct LogsArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Follow new lines until the run ends.
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Show only the lines of this worker: 1 for w1, 0 for setup.
    #[arg(long, value_name = "N")]
    pub(crate) worker: Option<u64>,

    /// Print JSON, one object per line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Show what happens to a run until it ends. Ctrl-C ends this command, not the run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  whimbrel watch char-lm-k3x9qa

Exit codes: 0 finished, 1 failed or cancelled, 2 no such run, 3 the coordinator cannot be reached, 75 stopped and
resumable.")]
pub(crate) struct WatchArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Print one JSON object for each event, one per line, on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Save a checkpoint of a run and stop it; `whimbrel submit --resume` resumes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel stop char-lm-k3x9qa")]
pub(crate) struct StopArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Print JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Cancel a run: it ends, and cannot be resumed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  whimbrel cancel char-lm-k3x9qa")]
pub(crate) struct CancelArgs {
    /// The run's id.
    pub(crate) run: String,

    /// Print JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}
