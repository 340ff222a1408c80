//! Reads the file of a run spec.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use whimbrel_spec::{Mistakes, Override, RunSpec};

use crate::exit::Failure;

/// A run spec that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// The file cannot be read.
    #[error("cannot read the run spec {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The spec has mistakes; all of them are reported.
    #[error("the run spec has mistakes:\n{0}")]
    Mistakes(Mistakes),
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::bad_input(error)
    }
}

/// Reads the spec in `path` and applies `overrides`.
pub(crate) fn read(path: &Path, overrides: &[Override]) -> Result<RunSpec, SpecError> {
    let text =
        fs::read_to_string(path).map_err(|source| SpecError::Read { path: path.to_owned(), source })?;
    RunSpec::parse(&path.display().to_string(), &text, overrides).map_err(SpecError::Mistakes)
}
