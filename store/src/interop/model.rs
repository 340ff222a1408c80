//! A model's folder as others write it: one safetensors file, or several with an index.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use whimbrel_state::{Layout, LayoutError, TensorSpec};

use super::{
    INDEX, SINGLE,
    header::{Header, HeaderError, MAX_HEADER},
    selection::Selection,
};

/// The tensors of a folder, open to be read as one state.
#[derive(Debug)]
pub struct Model {
    layout: Layout,
    /// Where each tensor of the layout is.
    places: Vec<Location>,
    files: Vec<(PathBuf, File)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug)]
struct Location {
    file: usize,
    /// The byte of the file at which it starts.
    start: u64,
}

/// A folder that is not a model's.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing in the folder says which files the model is.
    #[error(
        "{} holds {} safetensors files and neither {SINGLE} nor {INDEX}; name the folder of a model, or one file",
        path.display(), count
    )]
    Which {
        /// The folder.
        path: PathBuf,
        /// Files that end in `.safetensors`.
        count: usize,
    },
    /// The index is not one.
    #[error("{} is not the index of a model", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The index is far longer than any.
    #[error("{} is {length} bytes long, and an index is {MAX_HEADER} at most", path.display())]
    LongIndex {
        /// The index.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// The index names a file outside its folder.
    #[error("{} names the file {file:?}, which is not beside it", path.display())]
    Outside {
        /// The index.
        path: PathBuf,
        /// The file.
        file: String,
    },
    /// The index promises a tensor that the file does not hold.
    #[error("{} says that tensor {tensor:?} is in {file:?}, and it is not", path.display())]
    Promised {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A file is not a safetensors file, or holds what a state cannot.
    #[error("{} cannot be imported", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The tensors do not make a state.
    #[error("the tensors in {} do not make a state", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// What is wrong with them.
        source: LayoutError,
    },
    /// No tensor is left.
    #[error("{} holds none of the tensors that were asked for", path.display())]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
}

/// As much of an index as is used.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Model {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` names, or the only safetensors file
    /// of a folder; or one file by its own path. Headers are read and checked, tensors are not read.
    pub fn open(path: &Path, selection: &Selection) -> Result<Self, ModelError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Read { path, source }
        };
        let (paths, promised) = files(path)?;
        let (mut files, mut tensors, mut metadata) = (Vec::new(), Vec::new(), BTreeMap::new());
        for path in paths {
            let file = File::open(&path).map_err(read(&path))?;
            let header =
                Header::read(&file).map_err(|source| ModelError::File { path: path.clone(), source })?;
            if let Some((index, tensor, file)) = promised.broken(&path, &header) {
                return Err(ModelError::Promised { path: index, tensor, file });
            }
            for tensor in header.tensors {
                if let Some(name) = selection.rename(&tensor.spec.name) {
                    let place = Location { file: files.len(), start: tensor.place.start };
                    tensors.push((TensorSpec { name, ..tensor.spec }, place));
                }
            }
            metadata.extend(header.metadata);
            files.push((path, file));
        }
        if tensors.is_empty() {
            return Err(ModelError::Nothing { path: path.to_owned() });
        }
        // The order of a layout.
        tensors.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let (specs, places) = tensors.into_iter().unzip();
        let layout =
            Layout::new(specs).map_err(|source| ModelError::State { path: path.to_owned(), source })?;
        Ok(Self { layout, places, files, metadata })
    }

    /// The tensors, in the order of a state.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The texts that came with the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads a byte range of the state. Blocks.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Vec<u8>, ModelError> {
        let mut bytes = vec![0; range.len()];
        let mut rest = bytes.as_mut_slice();
        for (index, piece) in self.layout.pieces(range) {
            let (now, later) = rest.split_at_mut(piece.len());
            let Location { file, start } = self.places[index];
            let (path, file) = &self.files[file];
            file.read_exact_at(now, start + piece.start as u64)
                .map_err(|source| ModelError::Read { path: path.clone(), source })?;
            rest = later;
        }
        Ok(bytes)
    }
}

/// What an index promises of its files.
struct Promised {
    index: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl Promised {
    /// A tensor that should be in the file and is not: the index, the tensor, the file.
    fn broken(&self, path: &Path, header: &Header) -> Option<(PathBuf, String, String)> {
        let file = path.file_name()?.to_str()?;
        let held: HashSet<&str> = header.tensors.iter().map(|tensor| tensor.spec.name.as_str()).collect();
        let mut promised = self.weight_map.iter().filter(|(_, at)| *at == file);
        let (tensor, file) = promised.find(|(tensor, _)| !held.contains(tensor.as_str()))?;
        Some((self.index.clone(), tensor.clone(), file.clone()))
    }
}

/// The files of a model, and what its index promises of them.
fn files(path: &Path) -> Result<(Vec<PathBuf>, Promised), ModelError> {
    let no_index = || Promised { index: path.to_owned(), weight_map: BTreeMap::new() };
    let read = |source| ModelError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok((vec![path.to_owned()], no_index()));
    }
    let (single, index) = (path.join(SINGLE), path.join(INDEX));
    if index.is_file() {
        let promised = read_index(index)?;
        let names: HashSet<&String> = promised.weight_map.values().collect();
        let mut paths: Vec<PathBuf> = names.into_iter().map(|name| path.join(name)).collect();
        paths.sort();
        return Ok((paths, promised));
    }
    if single.is_file() {
        return Ok((vec![single], no_index()));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(file);
        }
    }
    match found.len() {
        1 => Ok((found, no_index())),
        count => Err(ModelError::Which { path: path.to_owned(), count }),
    }
}

fn read_index(path: PathBuf) -> Result<Promised, ModelError> {
    let read = |source| ModelError::Read { path: path.clone(), source };
    let length = fs::metadata(&path).map_err(read)?.len();
    if length > MAX_HEADER {
        return Err(ModelError::LongIndex { path, length });
    }
    let text = fs::read(&path).map_err(read)?;
    let Index { weight_map } =
        serde_json::from_slice(&text).map_err(|source| ModelError::Index { path: path.clone(), source })?;
    // Whoever wrote the index must not choose which files of this machine end up in a checkpoint.
    let beside = |file: &str| {
        let mut parts = Path::new(file).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
    };
    match weight_map.values().find(|file| !beside(file)) {
        Some(file) => Err(ModelError::Outside { file: file.clone(), path }),
        None => Ok(Promised { index: path, weight_map }),
    }
}
