//! One `whimbrel run` a run: a lock on this machine.
//!
//! What keeps two coordinators apart is the run's log: the later one fences the earlier. But nobody who gives the same
//! command in a second terminal wants the first to be fenced, and a log does not tell whether its last writer lives.
//! The lock does: the system lets go of it when the process ends, however it ends. It is advice among commands of one
//! user on one machine, so that where it cannot be had for other reasons, the run goes on without.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use whimbrel_state::Hash;

use crate::paths;

/// The right to run a run, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    held: Option<(File, PathBuf)>,
}

impl Claim {
    /// Claims the run of this URI; `None` if another process has.
    pub(crate) fn take(uri: &str) -> Option<Self> {
        match paths::state() {
            Some(folder) => Self::take_in(&folder.join("running"), uri),
            // A user without a home has no place for locks.
            None => Some(Self { held: None }),
        }
    }

    fn take_in(folder: &Path, uri: &str) -> Option<Self> {
        let path = folder.join(format!("{}.lock", Hash::of(uri.as_bytes())));
        match lock(&path) {
            Ok(Some(file)) => Some(Self { held: Some((file, path)) }),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a second `whimbrel run` of this run could not be kept off");
                Some(Self { held: None })
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while it is still locked: whoever opened it before finds out that it is no longer the one.
        if let Some((_, path)) = &self.held
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "the lock file stays");
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
        // Its last holder may have removed it between our opening and locking it: then it is nobody's lock any more.
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
    fn a_run_is_claimed_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let claim = |uri| Claim::take_in(folder.path(), uri);
        let first = claim("file:///runs/a").unwrap();
        assert!(claim("file:///runs/a").is_none());
        assert!(claim("file:///runs/b").is_some());
        drop(first);
        assert!(claim("file:///runs/a").is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_no_lock_can_be_had_the_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Claim::take_in(&file, "file:///runs/a").is_some_and(|claim| claim.held.is_none()));
    }
}
