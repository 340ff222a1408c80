//! Folders that a test makes unreachable while programs use them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A folder with a file in its place, so that every read and write in it fails.
#[derive(Debug)]
pub struct Unreachable {
    path: PathBuf,
    moved_to: PathBuf,
}

impl Unreachable {
    /// Exchanges a folder for a file, atomically: a program that writes at that moment would otherwise find nothing
    /// there and create the folder again. The folder is now beside its place, as `away-NAME`.
    pub fn make(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let moved_to = path.with_file_name(format!("away-{}", path.file_name().unwrap().to_str().unwrap()));
        fs::write(&moved_to, "not a folder").unwrap();
        exchange(&path, &moved_to);
        Self { path, moved_to }
    }

    /// Moves the folder back.
    pub fn restore(self) {
        exchange(&self.path, &self.moved_to);
        fs::remove_file(self.moved_to).unwrap();
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}
