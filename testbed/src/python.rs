//! Python with packages of PyPI, in an environment of its own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{install::from_pypi, process::finished, server::Unavailable};

/// The time that a script may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// An interpreter that finds the packages it was made with.
#[derive(Debug)]
pub struct Python {
    program: PathBuf,
}

impl Python {
    /// With `safetensors` and NumPy, installed if need be: what others read and write our files with.
    pub fn with_safetensors() -> Result<Self, Unavailable> {
        let folder = from_pypi("safetensors", "numpy", "0.8.0")
            .map_err(|reason| Unavailable { server: "Python's safetensors", reason })?;
        Ok(Self { program: folder.join("bin/python") })
    }

    /// Runs a script, and gives what it prints; or what it says on failing.
    pub fn run(&self, script: &Path, arguments: &[&OsStr]) -> Result<String, String> {
        finished(Command::new(&self.program).arg(script).args(arguments), DEADLINE)
    }
}
