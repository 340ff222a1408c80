//! How a command ends: its exit code, and what it says about a failure.

use std::{error::Error, fmt::Write as _, process::ExitCode};

use crate::print::Printer;

/// What the exit codes mean, for `--help`.
pub(crate) const CODES: &str = "\
Exit codes:
   0  done; for a run: finished
   1  the run failed or was cancelled, or something unexpected went wrong
   2  bad input: flags, settings, run spec, an unknown run, a store that will not do, an output that cannot be written
   3  the coordinator or the store cannot be reached
   4  damaged data in the store
  75  cut off: the run stopped before its end and can be resumed, or the same command can be given again";

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// What was asked for is done.
    Done,
    /// The run failed or was cancelled, or something unexpected went wrong.
    Failed,
    /// What was asked for makes no sense.
    BadInput,
    /// The coordinator or the store cannot be reached.
    Unreachable,
    /// Data in the store is damaged.
    Damaged,
    /// The run stopped before its end and can be resumed, or the command was interrupted and can be given again. 75 is `EX_TEMPFAIL` of `sysexits.h`: try again.
    Stopped,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::Done => 0,
            Code::Failed => 1,
            Code::BadInput => 2,
            Code::Unreachable => 3,
            Code::Damaged => 4,
            Code::Stopped => 75,
        })
    }
}

/// Why a command did not do what it was asked to, with its exit code: the border between errors and the shell.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    error: Box<dyn Error + Send + Sync>,
    tail: Vec<String>,
    hints: Vec<String>,
}

impl Failure {
    /// An error, and the exit code that goes with it.
    pub(crate) fn new(code: Code, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { code, error: error.into(), tail: Vec::new(), hints: Vec::new() }
    }

    /// What was asked for makes no sense.
    pub(crate) fn bad_input(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Code::BadInput, error)
    }

    /// Something or somebody cannot be reached.
    pub(crate) fn unreachable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Code::Unreachable, error)
    }

    /// Something went wrong that is nobody's input.
    pub(crate) fn unexpected(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Code::Failed, error)
    }

    /// Its exit code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the last lines of what failed.
    pub(crate) fn tail(mut self, lines: Vec<String>) -> Self {
        self.tail = lines;
        self
    }

    /// Says it on stderr, and ends the program with its code.
    pub(crate) fn report(&self) -> ExitCode {
        Printer::stderr().text(&self.text());
        self.code.into()
    }

    fn text(&self) -> String {
        let mut said = self.error.to_string();
        let mut text = format!("error: {said}\n");
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let words = error.to_string();
            // Some errors say their cause in their own words; nobody wants to read it twice.
            if !said.contains(&words) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  caused by: {words}");
                said = words;
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
    fn a_failure_says_each_cause_once_then_the_tail_then_what_to_do() {
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
