//! How a scenario reports failures and broken promises.

use std::{error::Error, fmt, fmt::Write as _};

/// The result of a scenario or of a part of one.
pub(super) type ScenarioResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A promise that was not kept, as an error, so that `?` ends the scenario.
#[derive(Debug)]
pub(super) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Broken {}

/// The error for a promise that was not kept.
pub(super) fn broken(what: impl Into<String>) -> Box<dyn Error + Send + Sync> {
    Box::new(Broken(what.into()))
}

/// An error and its causes, on one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").unwrap();
        cause = error.source();
    }
    text.replace('\n', " ")
}
