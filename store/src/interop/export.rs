//! A checkpoint written as a model's folder.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::sync::mpsc;
use whimbrel_state::{Layout, Manifest};

use super::{INDEX, SINGLE, SPEC, file_layout::Shards};
use crate::{
    checkpoint::{
        restore::RestoreError,
        save::Limits,
        sources::Sources,
        state_ranges::{Part, join, read},
    },
    object::folder::StoreError,
};

/// Parts of the state on their way to the disk at a time.
const AHEAD: usize = 4;

/// Where files are built; a name that says what is left of an export that was killed.
const BUILT_IN: &str = ".whimbrel-export-";

/// A checkpoint that was not exported. The folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is something in the folder.
    #[error("the folder {} is not empty, and the files of a model there would be replaced; name another, or give --force", folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Read(#[from] RestoreError),
    /// The runtime is shutting down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the chosen tensors of a checkpoint, and its run spec as `run.toml`, into a folder. Every byte is verified
/// before it is written; `progress` is told the bytes of tensors written.
///
/// The files are built under another name, written to the disk, and renamed when they are whole. A folder that holds
/// something is refused unless `force`: then the model in it is replaced, and its other files stay.
pub async fn export(
    (sources, manifest): (&Sources, &Manifest),
    shards: &Shards,
    spec: &str,
    folder: &Path,
    force: bool,
    limits: &Limits,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(), ExportError> {
    let place = Location::prepare(folder, force)?;
    let writer = Writer::create(place.built.path(), shards, manifest.layout.clone())?;
    let (feed, fed) = mpsc::channel(AHEAD);
    let writing = tokio::task::spawn_blocking(move || writer.write(fed));
    let chosen = shards.places.iter().enumerate().filter(|(_, place)| place.is_some());
    let ranges = join(chosen.map(|(index, _)| manifest.layout.range_of(index)));
    let read = read((sources, manifest), ranges, limits, feed, progress).await;
    let object = || folder.display().to_string();
    // Why nobody takes what is read is the first to be told.
    writing.await.map_err(|source| StoreError::CutOff { object: object(), source })??;
    read?;
    place.fill_in(shards, spec)
}

/// Writes tensors into files that are as long as they will be.
struct Writer {
    layout: Layout,
    files: Vec<(PathBuf, File)>,
    places: Vec<Option<(usize, u64)>>,
}

impl Writer {
    fn create(folder: &Path, shards: &Shards, layout: Layout) -> Result<Self, ExportError> {
        let mut files = Vec::new();
        for shard in &shards.files {
            let path = folder.join(&shard.name);
            let create = || {
                let mut file = File::create(&path)?;
                file.write_all(&shard.head)?;
                file.set_len(shard.length)?;
                Ok(file)
            };
            let file = create().map_err(|source| ExportError::Write { path: path.clone(), source })?;
            files.push((path, file));
        }
        Ok(Self { layout, files, places: shards.places.clone() })
    }

    /// Writes parts of the state, each given by where it starts, until there are no more; then waits for the disk.
    fn write(self, mut parts: mpsc::Receiver<Part>) -> Result<(), ExportError> {
        while let Some((start, mut bytes)) = parts.blocking_recv() {
            for (index, piece) in self.layout.pieces(start..start + bytes.len()) {
                let part = bytes.split_to(piece.len());
                let Some((file, at)) = self.places[index] else { continue };
                let (path, file) = &self.files[file];
                file.write_all_at(&part, at + piece.start as u64)
                    .map_err(|source| ExportError::Write { path: path.clone(), source })?;
            }
        }
        for (path, file) in self.files {
            file.sync_all().map_err(|source| ExportError::Write { path, source })?;
        }
        Ok(())
    }
}

/// Where an export goes, and the folder in which it is built, gone when this is dropped.
struct Location {
    folder: PathBuf,
    built: TempDir,
    /// The folder is not there: the one that is built becomes it.
    new: bool,
}

impl Location {
    fn prepare(folder: &Path, force: bool) -> Result<Self, ExportError> {
        let failed = |source| ExportError::Write { path: folder.to_owned(), source };
        let folder = std::path::absolute(folder).map_err(failed)?;
        let held = match fs::read_dir(&folder) {
            Ok(mut entries) => Some(entries.next().transpose().map_err(failed)?.is_some()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if held == Some(true) && !force {
            return Err(ExportError::NotEmpty { folder });
        }
        // On the file system of the folder, so that a rename is all it takes in the end.
        let beside = match held {
            Some(_) => folder.as_path(),
            None => folder.parent().unwrap_or(&folder),
        };
        fs::create_dir_all(beside).map_err(failed)?;
        let built = tempfile::Builder::new()
            .prefix(BUILT_IN)
            // As any folder of the user's, by their umask: it may become the folder itself.
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(beside)
            .map_err(failed)?;
        Ok(Self { new: held.is_none(), folder, built })
    }

    /// Has the files that are built appear in the folder.
    fn fill_in(self, shards: &Shards, spec: &str) -> Result<(), ExportError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ExportError::Write { path, source }
        };
        let built = self.built.path();
        let texts = [(SPEC, Some(spec.as_bytes())), (INDEX, shards.index.as_deref())];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            let path = built.join(name);
            let write = || {
                let mut file = File::create(&path)?;
                file.write_all(text)?;
                file.sync_all()
            };
            write().map_err(failed(&path))?;
        }
        if self.new {
            fs::rename(built, &self.folder).map_err(failed(&self.folder))?;
            // It has its final name now.
            let _ = self.built.keep();
            let parent = self.folder.parent().unwrap_or(&self.folder);
            return sync(parent).map_err(failed(parent));
        }
        // What loaders look for first goes first and comes last, so that there is never a model of two checkpoints.
        for name in [INDEX, SINGLE] {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(error)),
                _ => {}
            }
        }
        for path in shards_in(&self.folder).map_err(failed(&self.folder))? {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        for name in [SPEC].into_iter().chain(shards.names()) {
            let path = self.folder.join(name);
            fs::rename(built.join(name), &path).map_err(failed(&path))?;
        }
        sync(&self.folder).map_err(failed(&self.folder))
    }
}

/// Whether a file is a shard of a model: `model-00001-of-00002.safetensors` and the like, and nothing that a user named.
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    numbers
        .and_then(|numbers| numbers.split_once("-of-"))
        .is_some_and(|(shard, all)| is_number(shard) && is_number(all))
}

/// The shards of a model that is to be replaced.
fn shards_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_shard) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Has the names in a folder outlive a power failure.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
