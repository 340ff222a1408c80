//! A lock on this machine that keeps two `whimbrel run` commands from running the same run.
//!
//! The run log keeps two coordinators apart: the later one fences the earlier. But a user who gives the same command in a
//! second terminal does not want to fence the first, and a log does not show whether its last writer lives. The lock
//! does: the operating system releases it when the process ends. It is advisory, among the commands of one user on one
//! machine; where it cannot be taken for another reason, the run goes on without it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use whimbrel_state::Hash;

use crate::paths;

/// The lock of a run, held until it is dropped.
#[derive(Debug)]
pub(crate) struct RunLock {
    held: Option<(File, PathBuf)>,
}

impl RunLock {
    /// Takes the lock of the run in this directory; `None` if another process holds it.
    pub(crate) fn take(uri: &str) -> Option<Self> {
        match paths::state() {
            Some(folder) => Self::take_in(&folder.join("running"), uri),
            // A user without a home directory has no lock files.
            None => Some(Self { held: None }),
        }
    }

    fn take_in(folder: &Path, uri: &str) -> Option<Self> {
        let path = folder.join(format!("{}.lock", Hash::of(uri.as_bytes())));
        match lock(&path) {
            Ok(Some(file)) => Some(Self { held: Some((file, path)) }),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock the run; a second `whimbrel run` of it would not be refused");
                Some(Self { held: None })
            }
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Removed while still locked: a process that opened it before notices that it is gone (see `lock`).
        if let Some((_, path)) = &self.held
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "cannot remove the lock file");
        }
    }
}

/// Opens and locks the file; `None` if another process holds it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its last holder may have removed it after this process opened it: then another file has taken its place.
        let same =
            fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
        if same {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_locked_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let lock = |uri| RunLock::take_in(folder.path(), uri);
        let first = lock("file:///runs/a").unwrap();
        assert!(lock("file:///runs/a").is_none());
        assert!(lock("file:///runs/b").is_some());
        drop(first);
        assert!(lock("file:///runs/a").is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_lock_file_the_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(RunLock::take_in(&file, "file:///runs/a").is_some_and(|lock| lock.held.is_none()));
    }
}
