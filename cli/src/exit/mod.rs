//! How a command ends: its exit code, and the report of a failure.

mod store;

use std::{error::Error, fmt::Write as _};

use crate::output::print::Printer;

/// What the exit codes mean, for `--help`. [`Code`] has them for the program; the help of a command says what they mean
/// for that command.
pub(crate) const CODES: &str = "\
Exit codes:
   0  done; for a run: finished
   1  the run failed or was cancelled, or an unexpected error occurred
   2  bad input: flags, settings, run spec, an unknown run, an unsuitable store, an output that cannot be written
   3  the coordinator or the store cannot be reached
   4  damaged data in the store
  75  stopped: the run stopped before its end and can be resumed, or the command can be given again";

/// How a command ends; the numbers are the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The command did what it was asked to.
    Done = 0,
    /// The run failed or was cancelled, or an unexpected error occurred.
    Failed = 1,
    /// The user's input is wrong.
    BadInput = 2,
    /// The coordinator or the store cannot be reached.
    Unreachable = 3,
    /// Data in the store is damaged.
    Damaged = 4,
    /// The run stopped before its end and can be resumed, or the command was interrupted and can be given again.
    /// `EX_TEMPFAIL` of `sysexits.h`: try again.
    Stopped = 75,
}

/// Why a command failed, and its exit code: the border between errors and the shell.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    error: Box<dyn Error + Send + Sync>,
    tail: Vec<String>,
    hints: Vec<String>,
}

impl Failure {
    /// An error with its exit code.
    pub(crate) fn new(code: Code, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { code, error: error.into(), tail: Vec::new(), hints: Vec::new() }
    }

    /// The user's input is wrong.
    pub(crate) fn bad_input(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Code::BadInput, error)
    }

    /// The coordinator or the store cannot be reached.
    pub(crate) fn unreachable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Code::Unreachable, error)
    }

    /// An error that no input explains.
    pub(crate) fn unexpected(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Code::Failed, error)
    }

    /// The exit code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the last output lines of the process that failed.
    pub(crate) fn tail(mut self, lines: Vec<String>) -> Self {
        self.tail = lines;
        self
    }

    /// Writes the failure to stderr; returns the code with which to end the program.
    pub(crate) fn report(&self) -> Code {
        Printer::stderr().text(&self.text());
        self.code
    }

    fn text(&self) -> String {
        let mut last = self.error.to_string();
        let mut text = format!("error: {last}\n");
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // The message of some errors includes that of their cause.
            if !last.contains(&message) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  caused by: {message}");
                last = message;
            }
            cause = error.source();
        }
        for line in &self.tail {
            let _ = writeln!(text, "  | {line}");
        }
        for hint in &self.hints {
            let _ = writeln!(text, "  hint: {hint}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot cross the sea: it is wide")]
    struct Outer(#[source] Middle);
    #[derive(Debug, thiserror::Error)]
    #[error("it is wide")]
    struct Middle(#[source] Inner);
    #[derive(Debug, thiserror::Error)]
    #[error("8000 km")]
    struct Inner;

    #[test]
    fn a_failure_has_each_cause_once_then_the_tail_then_the_hints() {
        let failure = Failure::unreachable(Outer(Middle(Inner)))
            .tail(vec!["tired".into()])
            .hint("wait for the wind")
            .hint("eat first");
        assert_eq!(
            failure.text(),
            "error: cannot cross the sea: it is wide\n  caused by: 8000 km\n  | tired\n  \
             hint: wait for the wind\n  hint: eat first\n"
        );
        assert_eq!(failure.code, Code::Unreachable);
    }
}
