//! Which tensors go into which file of a model's folder, and at which byte.

use std::collections::{BTreeMap, HashSet};

use whimbrel_state::{Layout, TensorSpec};

use crate::interop::{
    header::{METADATA, lay_out},
    names::{INDEX, SINGLE},
    selection::Selection,
};

/// The files of a model's folder, laid out and not written yet.
#[derive(Debug)]
pub struct FileLayout {
    pub(super) files: Vec<ModelFile>,
    /// For each tensor of the state, its file and the byte of the file at which its data starts; `None` if it is not
    /// chosen.
    pub(super) offsets: Vec<Option<(usize, u64)>>,
    /// The index; `None` if there is one file.
    pub(super) index: Option<Vec<u8>>,
    tensors: usize,
    bytes: u64,
}

/// One safetensors file.
#[derive(Debug)]
pub(super) struct ModelFile {
    pub(super) name: String,
    /// The length field and the header.
    pub(super) head: Vec<u8>,
    /// The length of the whole file in bytes.
    pub(super) length: u64,
}

/// Why tensors cannot be laid out in files.
#[derive(Debug, thiserror::Error)]
pub enum FileLayoutError {
    /// No tensor is chosen.
    #[error("none of the {of} tensors is chosen; `whimbrel checkpoint show` lists their names")]
    Nothing {
        /// The number of tensors in the state.
        of: usize,
    },
    /// Two tensors would have the same name.
    #[error("two tensors would be named {0:?}; rename one of them differently")]
    Twice(String),
    /// A tensor would have the name that safetensors files reserve.
    #[error("a tensor would be named {METADATA:?}, which safetensors files reserve; rename it")]
    Reserved,
}

impl FileLayout {
    /// Fills files with up to `file_bytes` of tensors each, in the order of the state. A tensor larger than that has a
    /// file to itself. `metadata` goes into each file, together with the `format` key that loaders ask for.
    pub fn new(
        layout: &Layout,
        selection: &Selection,
        file_bytes: u64,
        mut metadata: BTreeMap<String, String>,
    ) -> Result<Self, FileLayoutError> {
        metadata.insert("format".into(), "pt".into());
        let mut names = HashSet::new();
        let mut groups: Vec<Vec<(usize, TensorSpec)>> = Vec::new();
        let (mut held, mut bytes, mut tensors) = (0_u64, 0, 0);
        for (index, tensor) in layout.tensors().iter().enumerate() {
            let Some(name) = selection.rename(&tensor.name) else { continue };
            if name == METADATA {
                return Err(FileLayoutError::Reserved);
            }
            if !names.insert(name.clone()) {
                return Err(FileLayoutError::Twice(name));
            }
            let length = layout.range_of(index).len() as u64;
            let spec = TensorSpec { name, ..tensor.clone() };
            match groups.last_mut() {
                Some(group) if held + length <= file_bytes => group.push((index, spec)),
                _ => {
                    groups.push(vec![(index, spec)]);
                    held = 0;
                }
            }
            held += length;
            bytes += length;
            tensors += 1;
        }
        if groups.is_empty() {
            return Err(FileLayoutError::Nothing { of: layout.tensors().len() });
        }
        let mut files = Self {
            files: Vec::new(),
            offsets: vec![None; layout.tensors().len()],
            index: None,
            tensors,
            bytes,
        };
        let mut weight_map = BTreeMap::new();
        let of = groups.len();
        for (number, group) in groups.into_iter().enumerate() {
            let name = match of {
                1 => SINGLE.to_owned(),
                _ => format!("model-{:05}-of-{of:05}.safetensors", number + 1),
            };
            files.add(&name, group, &metadata, &mut weight_map);
        }
        if of > 1 {
            let index = serde_json::json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map });
            files.index = Some(format!("{index:#}\n").into_bytes());
        }
        Ok(files)
    }

    fn add(
        &mut self,
        file: &str,
        group: Vec<(usize, TensorSpec)>,
        metadata: &BTreeMap<String, String>,
        weight_map: &mut BTreeMap<String, String>,
    ) {
        let (indices, specs): (Vec<usize>, Vec<TensorSpec>) = group.into_iter().unzip();
        let (head, ranges) = lay_out(metadata, &specs);
        let mut length = head.len() as u64;
        for (at, range) in ranges {
            self.offsets[indices[at]] = Some((self.files.len(), range.start));
            weight_map.insert(specs[at].name.clone(), file.to_owned());
            length = range.end;
        }
        self.files.push(ModelFile { name: file.to_owned(), head, length });
    }

    /// The names of the files in order, then that of the index if there is one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.name.as_str()).chain(self.index.iter().map(|_| INDEX))
    }

    /// The number of chosen tensors.
    pub fn tensors(&self) -> usize {
        self.tensors
    }

    /// Bytes of the chosen tensors.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
