//! A model's folder as any program writes it, one safetensors file or several with an index, opened as one state.

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

use crate::interop::{
    header::{Header, HeaderError, MAX_HEADER},
    names::{INDEX, SINGLE},
    selection::Selection,
};

/// The tensors of a model, open for reading as one state.
#[derive(Debug)]
pub struct Model {
    layout: Layout,
    /// Where each tensor of the layout is.
    offsets: Vec<FileOffset>,
    files: Vec<(PathBuf, File)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug)]
struct FileOffset {
    /// The index of the file.
    file: usize,
    /// The byte of the file at which the data starts.
    start: u64,
}

/// Why a folder cannot be opened or read as a model.
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
    /// The folder does not say which of its files are the model.
    #[error(
        "{} holds {} safetensors files and neither {SINGLE} nor {INDEX}; name the folder of a model, or one file",
        path.display(), count
    )]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// The number of files that end in `.safetensors`.
        count: usize,
    },
    /// The index file is not an index.
    #[error("{} is not the index of a model", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The index file is longer than any index.
    #[error("{} is {length} bytes long, and an index is {MAX_HEADER} at most", path.display())]
    LongIndex {
        /// The index.
        path: PathBuf,
        /// Its length in bytes.
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
    /// The index names a tensor that its file does not contain.
    #[error("{} says that tensor {tensor:?} is in {file:?}, and it is not", path.display())]
    NotInFile {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A file is not a safetensors file, or a state cannot hold its tensors.
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
    /// No tensor is chosen.
    #[error("{} holds none of the tensors that were asked for", path.display())]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
}

/// The part of an index file that is used.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Model {
    /// Opens a file, or a folder: the files that its `model.safetensors.index.json` names, else its
    /// `model.safetensors`, else its only safetensors file. Headers are read and checked, tensors are not read.
    pub fn open(path: &Path, selection: &Selection) -> Result<Self, ModelError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelError::Read { path, source }
        };
        let (paths, index) = files(path)?;
        let (mut files, mut tensors, mut metadata) = (Vec::new(), Vec::new(), BTreeMap::new());
        for path in paths {
            let file = File::open(&path).map_err(read(&path))?;
            let header =
                Header::read(&file).map_err(|source| ModelError::File { path: path.clone(), source })?;
            if let Some((index, tensor, file)) = index.missing_in(&path, &header) {
                return Err(ModelError::NotInFile { path: index, tensor, file });
            }
            for tensor in header.tensors {
                if let Some(name) = selection.rename(&tensor.spec.name) {
                    let offset = FileOffset { file: files.len(), start: tensor.range.start };
                    tensors.push((TensorSpec { name, ..tensor.spec }, offset));
                }
            }
            metadata.extend(header.metadata);
            files.push((path, file));
        }
        if tensors.is_empty() {
            return Err(ModelError::Nothing { path: path.to_owned() });
        }
        // A layout is ordered by name.
        tensors.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let (specs, offsets) = tensors.into_iter().unzip();
        let layout =
            Layout::new(specs).map_err(|source| ModelError::State { path: path.to_owned(), source })?;
        Ok(Self { layout, offsets, files, metadata })
    }

    /// The tensors, in the order of the state.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The metadata of all files.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads a byte range of the state. Blocks.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Vec<u8>, ModelError> {
        let mut bytes = vec![0; range.len()];
        let mut rest = bytes.as_mut_slice();
        for (index, piece) in self.layout.pieces(range) {
            let (now, later) = rest.split_at_mut(piece.len());
            let FileOffset { file, start } = self.offsets[index];
            let (path, file) = &self.files[file];
            file.read_exact_at(now, start + piece.start as u64)
                .map_err(|source| ModelError::Read { path: path.clone(), source })?;
            rest = later;
        }
        Ok(bytes)
    }
}

/// Which tensor is in which file. It is empty if the model has no index file.
struct ModelIndex {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl ModelIndex {
    /// A tensor that the index says is in the file and is not: the path of the index, the tensor, the file.
    fn missing_in(&self, path: &Path, header: &Header) -> Option<(PathBuf, String, String)> {
        let file = path.file_name()?.to_str()?;
        let contained: HashSet<&str> =
            header.tensors.iter().map(|tensor| tensor.spec.name.as_str()).collect();
        let mut indexed = self.weight_map.iter().filter(|(_, named)| *named == file);
        let (tensor, file) = indexed.find(|(tensor, _)| !contained.contains(tensor.as_str()))?;
        Some((self.path.clone(), tensor.clone(), file.clone()))
    }
}

/// The files of a model, and its index.
fn files(path: &Path) -> Result<(Vec<PathBuf>, ModelIndex), ModelError> {
    let no_index = || ModelIndex { path: path.to_owned(), weight_map: BTreeMap::new() };
    let read = |source| ModelError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok((vec![path.to_owned()], no_index()));
    }
    let (single, index) = (path.join(SINGLE), path.join(INDEX));
    if index.is_file() {
        let index = read_index(index)?;
        let names: HashSet<&String> = index.weight_map.values().collect();
        let mut paths: Vec<PathBuf> = names.into_iter().map(|name| path.join(name)).collect();
        paths.sort();
        return Ok((paths, index));
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
        count => Err(ModelError::Ambiguous { path: path.to_owned(), count }),
    }
}

fn read_index(path: PathBuf) -> Result<ModelIndex, ModelError> {
    let read = |source| ModelError::Read { path: path.clone(), source };
    let length = fs::metadata(&path).map_err(read)?.len();
    if length > MAX_HEADER {
        return Err(ModelError::LongIndex { path, length });
    }
    let text = fs::read(&path).map_err(read)?;
    let Index { weight_map } =
        serde_json::from_slice(&text).map_err(|source| ModelError::Index { path: path.clone(), source })?;
    // An index from elsewhere must not choose which files of this machine end up in a checkpoint.
    let beside = |file: &str| {
        let mut parts = Path::new(file).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
    };
    match weight_map.values().find(|file| !beside(file)) {
        Some(file) => Err(ModelError::Outside { file: file.clone(), path }),
        None => Ok(ModelIndex { path, weight_map }),
    }
}
