//! The commands and their flags, one file a family of commands. The doc comments of flags are their help texts.
//!
//! A flag that is not given comes from a `WHIMBREL_*` variable, or else from the settings files: most flags are optional
//! here for that reason. The command that uses a setting has its default.

pub(crate) mod agent;
pub(crate) mod checkpoint;
pub(crate) mod client;
pub(crate) mod coordinator;
mod overrides;
pub(crate) mod program;
pub(crate) mod run;

use std::{path::PathBuf, str::FromStr};

use clap::{ArgAction, Parser, Subcommand};

use crate::exit;

/// Training runs that cross machines and clouds, and finish.
///
/// A flag overrides its WHIMBREL_* variable, and the variable overrides the settings files. With --config, the only settings
/// file is the one given. Without it, there are two: whimbrel.toml in the working directory, and, for keys that it does not
/// have, config.toml in the user's configuration directory (~/.config/whimbrel). The sections are [coordinator], [agent] and
/// [client], with the names of the flags as keys (_ for -); and `[egress]`, see `whimbrel checkpoint copy --help`.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, after_help = exit::CODES, max_term_width = 110)]
pub(crate) struct Args {
    /// The settings file to use instead of the default ones.
    #[arg(long, global = true, value_name = "PATH", env = "WHIMBREL_CONFIG", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,

    /// Log more; repeat it for still more. WHIMBREL_LOG selects in detail, e.g. whimbrel_store=debug.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Everywhere")]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::RunArgs),
    Coordinator(coordinator::CoordinatorArgs),
    Agent(agent::AgentArgs),
    Submit(client::SubmitArgs),
    Runs(client::RunsArgs),
    Status(client::StatusArgs),
    Logs(client::LogsArgs),
    Watch(client::WatchArgs),
    Stop(client::StopArgs),
    Cancel(client::CancelArgs),
    #[command(subcommand)]
    Checkpoint(checkpoint::CheckpointCommand),
}

impl Command {
    /// Whether the command serves until a signal; its log is then its output.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Coordinator(_) | Self::Agent(_))
    }
}

/// Parses a number above zero. The message of `NonZero`'s own parser names its Rust type.
fn at_least_one<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "write a whole number, 1 or more")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Args::try_parse_from(line.split_whitespace()).map(|args| args.command)
    }

    #[test]
    fn printed_commands_repeat_how_the_coordinator_was_named() {
        let repeated = |line| match parse(line) {
            Ok(Command::Watch(args)) => args.access.repeated(),
            other => panic!("{other:?}"),
        };
        assert_eq!(repeated("whimbrel watch r"), "");
        assert_eq!(
            repeated("whimbrel watch r --coordinator [::1]:7071 --token-file my?token"),
            " --coordinator '[::1]:7071' --token-file 'my?token'"
        );
    }

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        let mut command = Args::command();
        command.clone().debug_assert();
        command.build();
        let mut commands: Vec<_> = command.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            if command.get_name() == "help" {
                continue;
            }
            commands.extend(command.get_subcommands());
            if command.has_subcommands() {
                continue;
            }
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example:\n{help}", command.get_name());
        }
    }

    #[test]
    fn run_takes_what_the_user_story_says() {
        let Ok(Command::Run(args)) = parse(
            "whimbrel run run.toml --workers 4 --set train.steps=40 --unset setup --set seed=1 --store s3://b/p \
             --resume --json",
        ) else {
            panic!("not parsed")
        };
        assert_eq!((args.spec.to_str(), args.workers.map(u32::from)), (Some("run.toml"), Some(4)));
        assert_eq!(
            args.program.overrides().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["train.steps=40", "seed=1", "setup"]
        );
        assert_eq!((args.resume, args.json), (Some(None), true));

        let line = "whimbrel run train.py small --steps 500 --batch 48 --seed 0 --set setup=make -- --lr 0.1";
        let args = match parse(line) {
            Ok(Command::Run(args)) => args,
            other => panic!("{other:?}"),
        };
        assert_eq!(args.program.arguments, ["small", "--lr", "0.1"]);
        let repeated = " --steps 500 --batch 48 --seed 0 --set 'setup=make' -- small --lr 0.1";
        assert_eq!(args.program.repeated(), repeated);

        let Ok(Command::Run(args)) = parse("whimbrel run run.toml --resume char-lm-k3x9qa") else {
            panic!("not parsed")
        };
        assert_eq!(args.resume, Some(Some("char-lm-k3x9qa".into())));
    }

    #[test]
    fn nonsense_is_refused_with_the_flag_named() {
        for (line, part) in [
            ("whimbrel run run.toml --workers 0", "1 or more"),
            ("whimbrel run run.toml --set steps", "KEY=VALUE"),
            ("whimbrel run train.py --steps 0", "1 or more"),
            ("whimbrel run train.py --lr 0.1", "'-- --lr'"),
            ("whimbrel run run.toml --unset steps=40", "not a dotted key"),
            ("whimbrel run run.toml --new --resume", "--resume"),
            ("whimbrel run", "SPEC"),
            ("whimbrel agent --join nowhere", "HOST:PORT"),
            ("whimbrel agent --join a:1 --price-per-hour -1", "--price-per-hour"),
            ("whimbrel agent --join a:1 --advertise here", "--advertise"),
            ("whimbrel coordinator --store runs --listen 7070", "--listen"),
            ("whimbrel submit", "SPEC"),
            ("whimbrel submit run.toml --resume r", "--resume"),
            ("whimbrel submit --resume r --set train.steps=40", "--set"),
            ("whimbrel submit --resume r --unset setup", "--unset"),
            ("whimbrel submit --resume r --steps 40", "--steps"),
            ("whimbrel checkpoint show", "RUN"),
            ("whimbrel checkpoint collect r --keep 0", "1 or more"),
            ("whimbrel stop", "RUN"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_switch_can_be_turned_off_again() {
        for (line, spot) in [
            ("whimbrel agent --join a:1", None),
            ("whimbrel agent --join a:1 --spot", Some(true)),
            ("whimbrel agent --join a:1 --spot=false", Some(false)),
        ] {
            let Ok(Command::Agent(args)) = parse(line) else { panic!("not parsed") };
            assert_eq!(args.settings.spot, spot);
        }
    }
}
