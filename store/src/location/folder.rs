//! Local folders as stores: `file:///folder`, or a path.

use std::{fs, io, path::PathBuf, sync::Arc};

use object_store::local::LocalFileSystem;
use url::Url;

use super::{error::OpenError, uri_parts::malformed};

/// The path that a `file://` URI names.
pub(super) fn path_of(uri: &str) -> Result<PathBuf, OpenError> {
    let url = Url::parse(uri).map_err(|error| malformed(uri, &error.to_string()))?;
    url.to_file_path()
        .map_err(|()| malformed(uri, "write file:///absolute/folder, with three slashes, or just the path"))
}

/// Opens a folder, which is created first if `create` says so. Returns its client, its canonical path and its URI.
pub(super) fn open(
    path: PathBuf,
    create: bool,
) -> Result<(Arc<LocalFileSystem>, PathBuf, String), OpenError> {
    let unusable = |source| OpenError::Folder { path: path.clone(), source };
    if create {
        fs::create_dir_all(&path).map_err(unusable)?;
    }
    let path = fs::canonicalize(&path).map_err(unusable)?;
    let not_a_folder = || unusable(io::ErrorKind::NotADirectory.into());
    if !path.is_dir() {
        return Err(not_a_folder());
    }
    let uri = crate::uri::of_folder(&path).ok_or_else(not_a_folder)?;
    // Without fsync a power failure could keep a log entry and lose the packs of its checkpoint.
    let objects = LocalFileSystem::new_with_prefix(&path)
        .map_err(|error| unusable(io::Error::other(error)))?
        .with_fsync(true);
    Ok((Arc::new(objects), path, uri))
}
