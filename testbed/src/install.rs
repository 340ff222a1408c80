//! Getting servers from the registries: Debian's packages, npm and PyPI.
//!
//! What is in the `PATH` is used. The rest is installed once, under a file lock, since tests run side by side; npm and
//! PyPI packages go to `target/testbed/`, and one that is not marked complete is wiped and installed anew.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::finished;

/// The time that an installation may take: hundreds of megabytes over a slow line.
const DEADLINE: Duration = Duration::from_secs(600);

/// Where a program is: in the `PATH`, or where systems keep their servers.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Makes sure that `programs` are there, from Debian's `packages` if need be.
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
        true => Err(format!("apt-get installed {wanted}, and {} is not there", programs.join(", "))),
        false => Ok(()),
    }
}

/// Installs packages of Debian as root. The caller has the lock.
fn apt_install(packages: &[&str]) -> Result<(), String> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        finished(command.env("DEBIAN_FRONTEND", "noninteractive"), DEADLINE)
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    // The lists may be missing or old, and an installation before this one may have been cut off.
    if apt(&install).is_err() {
        finished(Command::new("dpkg").args(["--configure", "-a"]), DEADLINE)?;
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

/// The folder of an npm package, installed if need be.
pub(crate) fn from_npm(package: &str, version: &str) -> Result<PathBuf, String> {
    from_debian(&["node", "npm"], &["nodejs", "npm"])?;
    once(&format!("{package}-{version}"), |folder| {
        announce(&format!("{package} {version}, by npm"));
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(folder);
        finished(npm.arg(format!("{package}@{version}")), DEADLINE).map(|_| ())
    })
}

/// The folder of a virtual environment with a package of PyPI, installed if need be. `extra` is what stands in
/// brackets behind the package's name.
pub(crate) fn from_pypi(package: &str, extra: &str, version: &str) -> Result<PathBuf, String> {
    from_debian(&["python3"], &["python3", "python3-venv"])?;
    once(&format!("{package}-{version}"), |folder| {
        announce(&format!("{package} {version}, by pip"));
        let make = || finished(Command::new("python3").args(["-m", "venv"]).arg(folder), DEADLINE);
        if let Err(why) = make() {
            // Debian's Python comes without the means to make one.
            if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
                return Err(why);
            }
            apt_install(&["python3-venv"])?;
            make()?;
        }
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        finished(pip.arg(format!("{package}[{extra}]=={version}")), DEADLINE).map(|_| ())
    })
}

/// The folder `target/testbed/<name>`, filled by `install` if that was not done to its end before.
fn once(name: &str, install: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
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

/// One installation at a time, over all processes; released when dropped.
fn lock() -> Result<File, String> {
    let path = home()?.join("install.lock");
    let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| format!("cannot lock {}: {error}", path.display()))
}

/// `target/testbed/` of the workspace.
fn home() -> Result<PathBuf, String> {
    // Cargo marks its target folder, wherever it was told to have it.
    let program =
        env::current_exe().map_err(|error| format!("where this program is, is unknown: {error}"))?;
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let target = marked.map_or(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), |folder| folder);
    let home = target.join("testbed");
    fs::create_dir_all(&home).map_err(|error| format!("cannot make {}: {error}", home.display()))?;
    Ok(home)
}

#[expect(clippy::print_stderr, reason = "a test that stands still for a minute says why")]
fn announce(what: &str) {
    eprintln!("testbed: installing {what}");
}
