//! Installs servers from Debian, npm and PyPI. The servers call it when they start.
//!
//! A program in the `PATH` is used as it is. Others are installed once, under a file lock, because tests run in
//! parallel. npm and PyPI packages go to `target/testbed/`; a folder without the mark of a complete installation is
//! deleted and installed again.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::finished;

/// The longest that an installation may take: it downloads hundreds of megabytes.
const DEADLINE: Duration = Duration::from_secs(600);

/// The path of a program in the `PATH`, `/usr/sbin` or `/usr/bin`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Installs Debian's `packages` if one of `programs` is missing.
pub(crate) fn from_debian(programs: &[&str], packages: &[&str]) -> Result<(), String> {
    let missing = || programs.iter().any(|program| find(program).is_none());
    if !missing() {
        return Ok(());
    }
    let _lock = lock()?;
    if !missing() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    let by_hand = format!("install it as root: apt-get install --no-install-recommends {wanted}");
    if find("apt-get").is_none() {
        return Err(format!("{} is not installed, and there is no apt-get", programs.join(", ")));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(format!("{} is not installed; {by_hand}", programs.join(", ")));
    }
    announce(&format!("{wanted}, by apt-get"));
    apt_install(packages)?;
    match missing() {
        true => Err(format!("apt-get installed {wanted}, but {} is still missing", programs.join(", "))),
        false => Ok(()),
    }
}

/// Installs Debian packages, as root. The caller holds the lock.
fn apt_install(packages: &[&str]) -> Result<(), String> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        finished(command.env("DEBIAN_FRONTEND", "noninteractive"), DEADLINE)
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    // The package lists may be missing or old, and an earlier installation may have been interrupted.
    if apt(&install).is_err() {
        finished(Command::new("dpkg").args(["--configure", "-a"]), DEADLINE)?;
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

/// Installs an npm package if it is missing, and returns its folder.
pub(crate) fn from_npm(package: &str, version: &str) -> Result<PathBuf, String> {
    from_debian(&["node", "npm"], &["nodejs", "npm"])?;
    once(&format!("{package}-{version}"), |folder| {
        announce(&format!("{package} {version}, by npm"));
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(folder);
        finished(npm.arg(format!("{package}@{version}")), DEADLINE).map(|_| ())
    })
}

/// Installs a PyPI package in a virtual environment if it is missing, and returns the environment's folder. `extra` is
/// the name in brackets after the package's.
pub(crate) fn from_pypi(package: &str, extra: &str, version: &str) -> Result<PathBuf, String> {
    from_debian(&["python3"], &["python3", "python3-venv"])?;
    once(&format!("{package}-{version}"), |folder| {
        virtual_environment(folder)?;
        pip_install(folder, &[format!("{package}[{extra}]=={version}").as_ref()])
    })
}

/// Makes a virtual environment for Python. The caller holds the lock.
pub(crate) fn virtual_environment(folder: &Path) -> Result<(), String> {
    let create = || finished(Command::new("python3").args(["-m", "venv"]).arg(folder), DEADLINE);
    if let Err(why) = create() {
        // Debian ships Python without the module that makes virtual environments.
        if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
            return Err(why);
        }
        apt_install(&["python3-venv"])?;
        create()?;
    }
    Ok(())
}

/// Installs packages in a virtual environment. The caller holds the lock.
pub(crate) fn pip_install(environment: &Path, what: &[&OsStr]) -> Result<(), String> {
    announce(&format!("{}, by pip", what.join(OsStr::new(" ")).display()));
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    finished(pip.args(what), DEADLINE).map(|_| ())
}

/// Fills the folder `target/testbed/<name>` with `install`, unless that was completed before, and returns it.
pub(crate) fn once(name: &str, install: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let folder = home()?.join(name);
    let complete = folder.join(".complete");
    if complete.is_file() {
        return Ok(folder);
    }
    let _lock = lock()?;
    if complete.is_file() {
        return Ok(folder);
    }
    let failed = |error: io::Error| format!("cannot use {}: {error}", folder.display());
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir_all(&folder).map_err(failed)?;
    install(&folder)?;
    File::create(complete).map_err(failed)?;
    Ok(folder)
}

/// Locks installations across all processes, until the file is dropped.
pub(crate) fn lock() -> Result<File, String> {
    let path = home()?.join("install.lock");
    let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| format!("cannot lock {}: {error}", path.display()))
}

/// `target/testbed/` of the workspace.
fn home() -> Result<PathBuf, String> {
    // Cargo marks its target folder with this file, wherever the folder is.
    let program =
        env::current_exe().map_err(|error| format!("the path of this program is unknown: {error}"))?;
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let target = marked.map_or(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), |folder| folder);
    let home = target.join("testbed");
    fs::create_dir_all(&home).map_err(|error| format!("cannot make {}: {error}", home.display()))?;
    Ok(home)
}

#[expect(clippy::print_stderr, reason = "an installation can take a minute: the test says so")]
fn announce(what: &str) {
    eprintln!("testbed: installing {what}");
}
