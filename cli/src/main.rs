//! The `whimbrel` command.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    whimbrel_cli::main(env::args_os()).into()
}
