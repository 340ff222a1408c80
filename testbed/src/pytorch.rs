//! PyTorch for the CPU, and the Python package of this workspace, in a virtual environment.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    install::{from_debian, lock, once, pip_install, virtual_environment},
    process::finished,
    servers::Unavailable,
};

/// PyTorch's version.
const TORCH: &str = "2.15.0";
/// What PyTorch needs to compute on the CPU. Its other dependencies are CUDA's libraries, 2 GB of them.
const NEEDS: &[&str] = &[
    "filelock",
    "typing_extensions",
    "sympy",
    "networkx",
    "jinja2",
    "fsspec",
    "numpy",
    "setuptools",
    "maturin>=1.9,<2",
];
/// Writes libraries in place of CUDA's.
const STUBS: &str = include_str!("pytorch/stub_libraries.py");
/// The longest that the wheel may take to build: all of Whimbrel's dependencies, on a busy machine.
const BUILD: Duration = Duration::from_secs(1800);

/// A Python interpreter with PyTorch.
#[derive(Debug)]
pub struct PyTorch {
    folder: PathBuf,
}

impl PyTorch {
    /// An interpreter with PyTorch for the CPU, which it installs if it is missing: 0.5 GB to download.
    pub fn install() -> Result<Self, Unavailable> {
        let installed = from_debian(&["python3"], &["python3", "python3-venv"])
            .and_then(|()| from_debian(&["gcc", "readelf"], &["gcc", "binutils", "libc6-dev"]))
            .and_then(|()| once(&format!("torch-{TORCH}"), install));
        let folder = installed.map_err(|reason| Unavailable { server: "PyTorch", reason })?;
        Ok(Self { folder })
    }

    /// Builds the wheel of the package in `source` with cargo's development profile, and installs it. Returns the
    /// wheel's file name.
    pub fn install_wheel(&self, source: &Path) -> Result<OsString, Unavailable> {
        let unavailable = |reason| Unavailable { server: "the Python package", reason };
        self.wheel(source).map_err(unavailable)
    }

    /// A command that runs a Python script.
    pub fn script(&self, script: &Path) -> Command {
        let mut command = Command::new(self.python());
        command.arg(script).envs(self.environment());
        command
    }

    /// The virtual environment.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The interpreter.
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// The environment variables that PyTorch needs.
    pub fn environment(&self) -> [(&'static str, OsString); 1] {
        [("LD_LIBRARY_PATH", self.folder.join("stubs").into())]
    }

    fn wheel(&self, source: &Path) -> Result<OsString, String> {
        let _lock = lock()?;
        let wheels = self.folder.join("wheels");
        let failed = |error: std::io::Error| format!("cannot use {}: {error}", wheels.display());
        if wheels.exists() {
            fs::remove_dir_all(&wheels).map_err(failed)?;
        }
        let mut maturin = Command::new(self.folder.join("bin/maturin"));
        maturin
            .args([
                "build",
                "--quiet",
                "--locked",
                "--profile",
                "dev",
                "--features",
                "shared-build",
                "--interpreter",
            ])
            .arg(self.python());
        finished(maturin.arg("--out").arg(&wheels).current_dir(source), BUILD)?;
        let mut built =
            fs::read_dir(&wheels).map_err(failed)?.filter_map(Result::ok).map(|entry| entry.path());
        let wheel = built.next().ok_or("maturin has built no wheel")?;
        pip_install(&self.folder, &["--no-deps".as_ref(), "--force-reinstall".as_ref(), wheel.as_os_str()])?;
        Ok(wheel.file_name().unwrap_or_default().to_owned())
    }
}

fn install(folder: &Path) -> Result<(), String> {
    virtual_environment(folder)?;
    let needs: Vec<&OsStr> = NEEDS.iter().map(OsStr::new).collect();
    pip_install(folder, &needs)?;
    pip_install(folder, &["--no-deps".as_ref(), format!("torch=={TORCH}").as_ref()])?;
    let script = folder.join("stub_libraries.py");
    fs::write(&script, STUBS).map_err(|error| format!("cannot write {}: {error}", script.display()))?;
    let mut locate = Command::new(folder.join("bin/python"));
    locate.args([
        "-c",
        "import importlib.util as util; print(util.find_spec('torch').submodule_search_locations[0])",
    ]);
    let torch = finished(&mut locate, Duration::from_secs(60))?;
    let mut stubs = Command::new(folder.join("bin/python"));
    stubs.arg(&script).arg(Path::new(torch.trim()).join("lib")).arg(folder.join("stubs"));
    finished(&mut stubs, Duration::from_secs(300)).map(|_| ())
}
