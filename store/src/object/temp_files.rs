//! What a program leaves in a local folder when it is killed in the middle of a put.
//!
//! A put to a folder is written to a file beside its target, named `<target>#<number>`, and renamed when it is whole.
//! `object_store` hides such files from its listings, so that nothing ever finds those whose writer is gone, and a pack
//! of 64 MiB stays for ever. Clouds have no such temp_files: there a put is whole or never was.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use url::Url;

use crate::{
    gc::age::Ages,
    object::folder::{Folder, StoreError},
};

/// The folders of a run in which objects are put.
const PLACES: [&str; 4] = ["log", "manifests", "packs", "output"];

/// Deletes unfinished files that are older than the grace; returns how many. In a store that is no folder there are none.
pub(crate) async fn sweep(folder: &Folder, ages: &Ages) -> Result<usize, StoreError> {
    let Some(root) = local_path(folder.uri()) else { return Ok(0) };
    let walk = move || -> Vec<(PathBuf, SystemTime)> {
        let mut found = Vec::new();
        for place in PLACES {
            // A folder that is not there, or gone in the meantime, has no temp_files.
            unfinished(&root.join(place), &mut found).ok();
        }
        found
    };
    let cut_off = |source| StoreError::CutOff { object: folder.uri().to_owned(), source };
    let found = tokio::task::spawn_blocking(walk).await.map_err(cut_off)?;
    let old: Vec<PathBuf> = found
        .into_iter()
        .filter(|(_, modified)| ages.is_file_past_grace(*modified))
        .map(|(path, _)| path)
        .collect();
    let remove = move || old.iter().filter(|path| fs::remove_file(path).is_ok()).count();
    tokio::task::spawn_blocking(remove).await.map_err(cut_off)
}

fn local_path(uri: &str) -> Option<PathBuf> {
    Url::parse(uri).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}

fn unfinished(folder: &Path, found: &mut Vec<(PathBuf, SystemTime)>) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        let file = file?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            unfinished(&file.path(), found)?;
        } else if is_unfinished(&file.file_name().to_string_lossy()) {
            found.push((file.path(), meta.modified()?));
        }
    }
    Ok(())
}

fn is_unfinished(name: &str) -> bool {
    let digits = name.rsplit_once('#').map(|(_, digits)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
