//! The Python that runs a script: that of the caller's virtual environment, or else the one in which this command is
//! installed, or else `python3`.

use std::{
    collections::BTreeMap,
    env, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::exit::Failure;

/// The Python in which this command is installed. The Python package sets it.
const OWN: &str = "WHIMBREL_PYTHON";
/// The interpreter if there is no other, looked for in `PATH`.
const DEFAULT: &str = "python3";
/// Deadline of an interpreter for importing the package: it may lie on a slow file server.
const IMPORT: Duration = Duration::from_secs(60);

/// No interpreter can run the script.
#[derive(Debug, thiserror::Error)]
enum InterpreterError {
    #[error("the virtual environment {} (VIRTUAL_ENV) has no bin/python", folder.display())]
    NoEnvironment { folder: PathBuf },
    #[error("{python} cannot be run")]
    NotRun { python: String, source: io::Error },
    #[error("{python} did not import the package whimbrel within {} s", IMPORT.as_secs())]
    Slow { python: String },
    #[error("{python} cannot import the package whimbrel: {reason}")]
    NoPackage { python: String, reason: String },
}

/// The interpreter to name in the command of a script's run.
pub(crate) fn find() -> Result<String, Failure> {
    let Some(folder) = env::var_os("VIRTUAL_ENV").filter(|folder| !folder.is_empty()) else {
        return Ok(env::var(OWN).unwrap_or_else(|_| DEFAULT.to_owned()));
    };
    let folder = PathBuf::from(folder);
    let python = folder.join("bin/python");
    if !python.is_file() {
        return Err(Failure::bad_input(InterpreterError::NoEnvironment { folder })
            .hint("activate another environment, or unset VIRTUAL_ENV to use python3"));
    }
    Ok(python.display().to_string())
}

/// Checks that an interpreter can import the package, in the script's folder and with the workers' variables. It does not
/// import PyTorch, which takes seconds.
pub(crate) async fn check(
    python: &str,
    script: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let mut command = Command::new(python);
    command.args(["-B", "-c", "import whimbrel"]).envs(environment).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(folder) = script.parent().filter(|folder| folder.is_dir()) {
        command.current_dir(folder);
    }
    let python = python.to_owned();
    match timeout(IMPORT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let printed = String::from_utf8_lossy(&output.stderr);
            let reason = printed.lines().last().unwrap_or("it printed nothing").to_owned();
            let hint = format!("install it there, from Whimbrel's sources: {python} -m pip install ./python");
            Err(Failure::bad_input(InterpreterError::NoPackage { python, reason }).hint(hint))
        }
        Ok(Err(source)) => Err(Failure::bad_input(InterpreterError::NotRun { python, source })
            .hint("install Python 3.10 or newer, activate a virtual environment, or set command in the script's header")),
        Err(_) => Err(Failure::bad_input(InterpreterError::Slow { python })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interpreter_without_the_package_is_named_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("train.py");
        let error = check("python3", &script, &BTreeMap::new()).await.unwrap_err();
        let error = format!("{error:?}");
        assert!(error.contains("No module named 'whimbrel'") && error.contains("pip install"), "{error}");
        let error = format!("{:?}", check("no-such-python", &script, &BTreeMap::new()).await.unwrap_err());
        assert!(error.contains("no-such-python") && error.contains("NotFound"), "{error}");
        // The package is found beside the script, where the worker would find it.
        std::fs::write(folder.path().join("whimbrel.py"), "import os; assert os.environ['A'] == 'b'\n")
            .unwrap();
        check("python3", &script, &BTreeMap::from([("A".into(), "b".into())])).await.unwrap();
    }
}
