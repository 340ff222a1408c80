//! The folders for a user's files, by the XDG base directory specification.

use std::{
    env,
    path::{Path, PathBuf},
};

/// `$XDG_CONFIG_HOME/whimbrel`, by default `~/.config/whimbrel`; `None` for a user without a home directory.
pub(crate) fn config() -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config")
}

/// `$XDG_STATE_HOME/whimbrel`, by default `~/.local/state/whimbrel`; `None` for a user without a home directory.
pub(crate) fn state() -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state")
}

fn base(variable: &str, under_home: &str) -> Option<PathBuf> {
    // The specification says to ignore a relative path.
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute(variable).or_else(|| Some(absolute("HOME")?.join(Path::new(under_home))))?;
    Some(folder.join("whimbrel"))
}
