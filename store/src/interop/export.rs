//! Writing a checkpoint as a model's folder.
//!
//! The files are built in a temporary folder and renamed when they are complete: a failed export leaves the folder as
//! it was.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::mpsc;
use whimbrel_state::{Layout, Manifest};

use crate::{
    checkpoint::{RestoreError, Sources, StatePart, join_ranges, read_ranges},
    interop::{
        file_layout::FileLayout,
        names::{INDEX, SINGLE, SPEC},
    },
    object::{Limits, StoreError},
};

/// Parts of the state that wait to be written to the disk.
const MAX_WAITING: usize = 4;

/// The prefix of the temporary folder. If an export is killed, the name says where the folder came from.
const TEMP_PREFIX: &str = ".whimbrel-export-";

/// Why a checkpoint was not exported. The folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The folder is not empty.
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
        /// Why.
        source: io::Error,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Read(#[from] RestoreError),
    /// The runtime is shutting down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the tensors of a checkpoint that are in `files`, and its run spec as `run.toml`, into a folder. Every byte is
/// verified before it is written. `progress` is called with the number of bytes of each part read.
///
/// A folder that is not empty is refused unless `force`: then the model in it is replaced and its other files stay.
pub fn export<'a>(
    (sources, manifest): (&'a Sources, &'a Manifest),
    files: &'a FileLayout,
    spec: &'a str,
    folder: &'a Path,
    force: bool,
    limits: &'a Limits,
    progress: &'a mut (dyn FnMut(u64) + Send + 'a),
) -> BoxFuture<'a, Result<(), ExportError>> {
    Box::pin(async move {
        let destination = Destination::prepare(folder, force)?;
        let writer = Writer::create(destination.temp.path(), files, manifest.layout.clone())?;
        let (send, parts) = mpsc::channel(MAX_WAITING);
        let writing = tokio::task::spawn_blocking(move || writer.write(parts));
        let chosen = files.offsets.iter().enumerate().filter(|(_, offset)| offset.is_some());
        let ranges = join_ranges(chosen.map(|(index, _)| manifest.layout.range_of(index)));
        let read = read_ranges((sources, manifest), ranges, limits, send, progress).await;
        let object = || folder.display().to_string();
        // The writer's error comes first: a failed writer also ends the read.
        writing.await.map_err(|source| StoreError::CutOff { object: object(), source })??;
        read?;
        destination.publish(files, spec)
    })
}

/// Writes tensors into files, which have their final length from the start.
struct Writer {
    layout: Layout,
    files: Vec<(PathBuf, File)>,
    offsets: Vec<Option<(usize, u64)>>,
}

impl Writer {
    fn create(folder: &Path, file_layout: &FileLayout, layout: Layout) -> Result<Self, ExportError> {
        let mut files = Vec::new();
        for planned in &file_layout.files {
            let path = folder.join(&planned.name);
            let create = || {
                let mut file = File::create(&path)?;
                file.write_all(&planned.head)?;
                file.set_len(planned.length)?;
                Ok(file)
            };
            let file = create().map_err(|source| ExportError::Write { path: path.clone(), source })?;
            files.push((path, file));
        }
        Ok(Self { layout, files, offsets: file_layout.offsets.clone() })
    }

    /// Writes parts of the state until the channel closes, then syncs the files.
    fn write(self, mut parts: mpsc::Receiver<StatePart>) -> Result<(), ExportError> {
        while let Some((start, mut bytes)) = parts.blocking_recv() {
            for (index, piece) in self.layout.pieces(start..start + bytes.len()) {
                let part = bytes.split_to(piece.len());
                let Some((file, at)) = self.offsets[index] else { continue };
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

/// The folder of an export, and the temporary folder in which the files are built.
struct Destination {
    folder: PathBuf,
    /// Deleted on drop.
    temp: TempDir,
    /// Whether the folder does not exist: then the temporary folder becomes it.
    is_new: bool,
}

impl Destination {
    fn prepare(folder: &Path, force: bool) -> Result<Self, ExportError> {
        let failed = |source| ExportError::Write { path: folder.to_owned(), source };
        let folder = std::path::absolute(folder).map_err(failed)?;
        let has_entries = match fs::read_dir(&folder) {
            Ok(mut entries) => Some(entries.next().transpose().map_err(failed)?.is_some()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if has_entries == Some(true) && !force {
            return Err(ExportError::NotEmpty { folder });
        }
        // On the same file system as the folder, so that files can be renamed into it.
        let parent = match has_entries {
            Some(_) => folder.as_path(),
            None => folder.parent().unwrap_or(&folder),
        };
        fs::create_dir_all(parent).map_err(failed)?;
        let temp = tempfile::Builder::new()
            .prefix(TEMP_PREFIX)
            // The permissions of an ordinary new folder, subject to the umask: it may become the folder itself.
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(failed)?;
        Ok(Self { is_new: has_entries.is_none(), folder, temp })
    }

    /// Moves the files into the folder.
    fn publish(self, files: &FileLayout, spec: &str) -> Result<(), ExportError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ExportError::Write { path, source }
        };
        let temp = self.temp.path();
        let texts = [(SPEC, Some(spec.as_bytes())), (INDEX, files.index.as_deref())];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            let path = temp.join(name);
            let write = || {
                let mut file = File::create(&path)?;
                file.write_all(text)?;
                file.sync_all()
            };
            write().map_err(failed(&path))?;
        }
        if self.is_new {
            fs::rename(temp, &self.folder).map_err(failed(&self.folder))?;
            // It has its final name and is not to be deleted.
            let _ = self.temp.keep();
            let parent = self.folder.parent().unwrap_or(&self.folder);
            return sync(parent).map_err(failed(parent));
        }
        // The files that loaders look for first are deleted first and arrive last: the folder is never a mixture of two
        // checkpoints.
        for name in [INDEX, SINGLE] {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(error)),
                _ => {}
            }
        }
        for path in numbered_files(&self.folder).map_err(failed(&self.folder))? {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        for name in [SPEC].into_iter().chain(files.names()) {
            let path = self.folder.join(name);
            fs::rename(temp.join(name), &path).map_err(failed(&path))?;
        }
        sync(&self.folder).map_err(failed(&self.folder))
    }
}

/// Whether a file is one of the several files of a model, as `model-00001-of-00002.safetensors` is. Files with a name
/// that a user chose are not.
fn is_numbered(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    numbers
        .and_then(|numbers| numbers.split_once("-of-"))
        .is_some_and(|(number, all)| is_number(number) && is_number(all))
}

/// The numbered files of a model that is to be replaced.
fn numbered_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_numbered) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
