//! Python with the safetensors package, for tests that read our files with other software.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{install::from_pypi, process::finished, servers::Unavailable};

/// The longest that a script may run.
const DEADLINE: Duration = Duration::from_secs(120);

/// A Python interpreter in a virtual environment.
#[derive(Debug)]
pub struct Python {
    program: PathBuf,
}

impl Python {
    /// An interpreter with `safetensors` and NumPy, which it installs if they are missing.
    pub fn with_safetensors() -> Result<Self, Unavailable> {
        let folder = from_pypi("safetensors", "numpy", "0.8.0")
            .map_err(|reason| Unavailable { server: "Python's safetensors", reason })?;
        Ok(Self { program: folder.join("bin/python") })
    }

    /// Runs a script and returns its output. The error contains the last lines of the output.
    pub fn run(&self, script: &Path, arguments: &[&OsStr]) -> Result<String, String> {
        finished(Command::new(&self.program).arg(script).args(arguments), DEADLINE)
    }
}
