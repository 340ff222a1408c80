//! Temp files: what a program leaves in a local folder if it is killed in the middle of a put.
//!
//! `object_store` writes a put to a file beside its target, named `<target>#<number>`, and renames the file when it is
//! complete. It hides such files from its listings, so without this sweep a pack of 64 MiB whose writer was killed would
//! stay for ever. Clouds have no temp files: there a put is complete or absent.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use url::Url;

use super::{error::StoreError, folder::Folder};

/// Deletes the temp files in `subfolders` of a local folder for whose modification time `is_old` holds; returns how many.
/// In a cloud it does nothing.
pub(crate) async fn sweep(
    folder: &Folder,
    subfolders: &'static [&'static str],
    is_old: impl Fn(SystemTime) -> bool,
) -> Result<usize, StoreError> {
    let Some(root) = local_path(folder.uri()) else { return Ok(0) };
    let walk = move || -> Vec<(PathBuf, SystemTime)> {
        let mut found = Vec::new();
        for subfolder in subfolders {
            // A folder that does not exist, or vanishes meanwhile, has no temp files.
            find(&root.join(subfolder), &mut found).ok();
        }
        found
    };
    let cut_off = |source| StoreError::CutOff { object: folder.uri().to_owned(), source };
    let found = tokio::task::spawn_blocking(walk).await.map_err(cut_off)?;
    let old: Vec<PathBuf> =
        found.into_iter().filter(|(_, modified)| is_old(*modified)).map(|(path, _)| path).collect();
    let remove = move || old.iter().filter(|path| fs::remove_file(path).is_ok()).count();
    tokio::task::spawn_blocking(remove).await.map_err(cut_off)
}

fn local_path(uri: &str) -> Option<PathBuf> {
    Url::parse(uri).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}

/// Adds the temp files in a folder, and in the folders in it, with their modification times.
fn find(folder: &Path, found: &mut Vec<(PathBuf, SystemTime)>) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        let file = file?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            find(&file.path(), found)?;
        } else if is_temp_file(&file.file_name().to_string_lossy()) {
            found.push((file.path(), meta.modified()?));
        }
    }
    Ok(())
}

fn is_temp_file(name: &str) -> bool {
    let digits = name.rsplit_once('#').map(|(_, digits)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
