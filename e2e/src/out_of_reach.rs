//! Folders put out of reach of programs that are at work in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A folder in whose place there is a file, so that nothing can be read or written in it.
#[derive(Debug)]
pub struct OutOfReach {
    path: PathBuf,
    away: PathBuf,
}

impl OutOfReach {
    /// Puts a folder out of reach, at one stroke: whoever writes in it at that moment would make it anew, if for that moment
    /// there were nothing in its place. It is beside its place from then on, as `away-NAME`.
    pub fn put(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let away = path.with_file_name(format!("away-{}", path.file_name().unwrap().to_str().unwrap()));
        fs::write(&away, "no folder").unwrap();
        exchange(&path, &away);
        Self { path, away }
    }

    /// Puts it back.
    pub fn back(self) {
        exchange(&self.path, &self.away);
        fs::remove_file(self.away).unwrap();
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}
