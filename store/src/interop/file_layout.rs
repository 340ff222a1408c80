//! Which tensors go into which file of a model's folder.

use std::collections::{BTreeMap, HashSet};

use whimbrel_state::{Layout, TensorSpec};

use super::{
    INDEX, SINGLE,
    header::{METADATA, lay_out},
    selection::Selection,
};

/// The files of a model's folder before they are written.
#[derive(Debug)]
pub struct Shards {
    pub(super) files: Vec<Shard>,
    /// For each tensor of the state the file and the byte of it where it starts, if it is chosen.
    pub(super) places: Vec<Option<(usize, u64)>>,
    /// The index, if there are several files.
    pub(super) index: Option<Vec<u8>>,
    tensors: usize,
    bytes: u64,
}

/// One file.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    /// The file's length and header.
    pub(super) head: Vec<u8>,
    /// Bytes of the whole file.
    pub(super) length: u64,
}

/// Tensors that cannot be laid out in files.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// No tensor is chosen.
    #[error("none of the {of} tensors is chosen; `whimbrel checkpoint show` lists their names")]
    Nothing {
        /// Tensors of the state.
        of: usize,
    },
    /// Two tensors would bear one name.
    #[error("two tensors would be named {0:?}; rename them otherwise")]
    Twice(String),
    /// A name that safetensors files use for something else.
    #[error(
        "a tensor would be named {METADATA:?}, which is no tensor's name in a safetensors file; rename it"
    )]
    Reserved,
}

impl Shards {
    /// Fills files up to `shard_bytes` of tensors each, in the order of the state; a tensor larger than that has a file
    /// to itself. `metadata` goes into each file, beside the format's name that loaders ask for.
    pub fn new(
        layout: &Layout,
        selection: &Selection,
        shard_bytes: u64,
        mut metadata: BTreeMap<String, String>,
    ) -> Result<Self, ShardError> {
        metadata.insert("format".into(), "pt".into());
        let mut names = HashSet::new();
        let mut groups: Vec<Vec<(usize, TensorSpec)>> = Vec::new();
        let (mut held, mut bytes, mut tensors) = (0_u64, 0, 0);
        for (index, tensor) in layout.tensors().iter().enumerate() {
            let Some(name) = selection.rename(&tensor.name) else { continue };
            if name == METADATA {
                return Err(ShardError::Reserved);
            }
            if !names.insert(name.clone()) {
                return Err(ShardError::Twice(name));
            }
            let length = layout.range_of(index).len() as u64;
            let spec = TensorSpec { name, ..tensor.clone() };
            match groups.last_mut() {
                Some(group) if held + length <= shard_bytes => group.push((index, spec)),
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
            return Err(ShardError::Nothing { of: layout.tensors().len() });
        }
        let mut shards = Self {
            files: Vec::new(),
            places: vec![None; layout.tensors().len()],
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
            shards.add(&name, group, &metadata, &mut weight_map);
        }
        if of > 1 {
            let index = serde_json::json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map });
            shards.index = Some(format!("{index:#}\n").into_bytes());
        }
        Ok(shards)
    }

    fn add(
        &mut self,
        file: &str,
        group: Vec<(usize, TensorSpec)>,
        metadata: &BTreeMap<String, String>,
        weight_map: &mut BTreeMap<String, String>,
    ) {
        let (indices, specs): (Vec<usize>, Vec<TensorSpec>) = group.into_iter().unzip();
        let (head, places) = lay_out(metadata, &specs);
        let mut length = head.len() as u64;
        for (at, place) in places {
            self.places[indices[at]] = Some((self.files.len(), place.start));
            weight_map.insert(specs[at].name.clone(), file.to_owned());
            length = place.end;
        }
        self.files.push(Shard { name: file.to_owned(), head, length });
    }

    /// The names of the files, in order, the index among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.name.as_str()).chain(self.index.iter().map(|_| INDEX))
    }

    /// The number of tensors.
    pub fn tensors(&self) -> usize {
        self.tensors
    }

    /// Bytes of the tensors.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
