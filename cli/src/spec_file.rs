//! Reads a run spec from its file, or from the header of a Python script; writes one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use whimbrel_spec::{Mistakes, Override, RunSpec, Script};

use crate::{exit::Failure, interpreter};

/// A run spec that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// The file cannot be read.
    #[error("cannot read the {} {}", if is_script(path) { "script" } else { "run spec" }, path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The spec has mistakes; all of them are reported.
    #[error("the run spec has mistakes:\n{0}")]
    Mistakes(Mistakes),
    /// Arguments for a program that is not a script.
    #[error(
        "{} takes no arguments, and {argument:?} is given: the program's arguments are in its command",
        path.display()
    )]
    Arguments {
        /// The file.
        path: PathBuf,
        /// The first argument.
        argument: String,
    },
    /// The spec cannot be written.
    #[error("cannot write the run spec {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::bad_input(error)
    }
}

/// Whether a path names a Python script. Any other file is a run spec.
pub(crate) fn is_script(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "py")
}

/// Reads the spec in `path` and applies `overrides`.
pub(crate) fn read(path: &Path, overrides: &[Override]) -> Result<RunSpec, SpecError> {
    RunSpec::parse(&path.display().to_string(), &text(path)?, overrides).map_err(SpecError::Mistakes)
}

/// A run spec, from a file or from a script.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) spec: RunSpec,
    /// The interpreter in the spec's command, if the script left its choice to us and no `setup` may change it.
    interpreter: Option<String>,
}

impl Program {
    /// Reads the spec in `path`, or that of the script in `path`, which gets `arguments`.
    pub(crate) fn read(path: &Path, arguments: &[String], overrides: &[Override]) -> Result<Self, Failure> {
        if !is_script(path) {
            if let Some(argument) = arguments.first().cloned() {
                return Err(SpecError::Arguments { path: path.to_owned(), argument }.into());
            }
            return Ok(Self { spec: read(path, overrides)?, interpreter: None });
        }
        let script = Script::read(&path.display().to_string(), &text(path)?).map_err(SpecError::Mistakes)?;
        let chosen = if script.lacks("command", overrides) { Some(interpreter::find()?) } else { None };
        let spec = script.spec(chosen.as_deref().unwrap_or_default(), arguments, overrides);
        let spec = spec.map_err(SpecError::Mistakes)?;
        let interpreter = chosen.filter(|_| spec.setup.is_none());
        Ok(Self { spec, interpreter })
    }

    /// Checks that the program's interpreter can run it on this machine.
    pub(crate) async fn check_interpreter(&self, path: &Path) -> Result<(), Failure> {
        match &self.interpreter {
            Some(interpreter) => interpreter::check(interpreter, path, &self.spec.workers.environment).await,
            None => Ok(()),
        }
    }
}

/// Writes a spec to a file that does not exist yet.
pub(crate) fn save(path: &Path, spec: &RunSpec) -> Result<(), SpecError> {
    let write = || File::create_new(path)?.write_all(spec.to_toml().as_bytes());
    write().map_err(|source| SpecError::Write { path: path.to_owned(), source })
}

fn text(path: &Path) -> Result<String, SpecError> {
    fs::read_to_string(path).map_err(|source| SpecError::Read { path: path.to_owned(), source })
}
