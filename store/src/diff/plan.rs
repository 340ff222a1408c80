//! The two steps of a diff: what has to be compared by the manifests, and the comparison.

use std::collections::HashMap;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use whimbrel_state::{Layout, Manifest, TensorSpec};

use crate::{
    checkpoint::{RestoreError, Sources, join_ranges, read_ranges},
    diff::{
        compare::{StateFeed, compare},
        unequal_parts::{UnequalPart, unequal_parts},
        values::ValueDifference,
    },
    object::{Limits, StoreError},
};

/// How two checkpoints, *a* and *b*, differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Tensors that only *a* has.
    pub only_in_a: Vec<TensorSpec>,
    /// Tensors that only *b* has.
    pub only_in_b: Vec<TensorSpec>,
    /// Tensors of one name whose types or shapes differ, as they are in *a* and in *b*.
    pub reshaped: Vec<(TensorSpec, TensorSpec)>,
    /// Tensors whose values differ.
    pub changed: Vec<(TensorSpec, ValueDifference)>,
    /// The number of tensors that are equal, bit for bit.
    pub equal: usize,
    /// Bytes of each state that were compared.
    pub compared: u64,
    /// Bytes of each state that hashes prove equal. They were not read.
    pub equal_by_hash: u64,
}

impl Difference {
    /// Whether the checkpoints are equal.
    pub fn is_none(&self) -> bool {
        self.only_in_a.is_empty()
            && self.only_in_b.is_empty()
            && self.reshaped.is_empty()
            && self.changed.is_empty()
    }
}

/// Why two checkpoints could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// One of them could not be read.
    #[error(transparent)]
    Read(#[from] RestoreError),
    /// The runtime is shutting down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What has to be compared, by the manifests alone.
#[derive(Debug)]
pub struct DiffPlan {
    difference: Difference,
    parts: Vec<UnequalPart>,
}

impl DiffPlan {
    /// Compares the manifests. It makes no request.
    pub fn new(a: &Manifest, b: &Manifest) -> Self {
        let mut difference = Difference::default();
        let index = |layout: &Layout| -> HashMap<String, usize> {
            layout.tensors().iter().enumerate().map(|(index, tensor)| (tensor.name.clone(), index)).collect()
        };
        let (in_a, in_b) = (index(&a.layout), index(&b.layout));
        let mut shared = Vec::new();
        for (a_index, tensor) in a.layout.tensors().iter().enumerate() {
            match in_b.get(&tensor.name).map(|&b_index| (b_index, &b.layout.tensors()[b_index])) {
                None => difference.only_in_a.push(tensor.clone()),
                Some((b_index, other)) if other == tensor => shared.push((a_index, b_index)),
                Some((_, other)) => difference.reshaped.push((tensor.clone(), other.clone())),
            }
        }
        let missing = b.layout.tensors().iter().filter(|tensor| !in_a.contains_key(&tensor.name));
        difference.only_in_b.extend(missing.cloned());
        let parts = unequal_parts(a, b, &shared);
        difference.equal = shared.len();
        difference.compared = parts.iter().map(|part| part.a.len() as u64).sum();
        let bytes: u64 = shared.iter().map(|&(index, _)| a.layout.range_of(index).len() as u64).sum();
        difference.equal_by_hash = bytes.saturating_sub(difference.compared);
        Self { difference, parts }
    }

    /// Bytes of each state that have to be compared.
    pub fn bytes(&self) -> u64 {
        self.difference.compared
    }

    /// Reads both checkpoints and compares them. `progress` is called with the number of bytes of each part read of
    /// *a*.
    pub fn execute<'a>(
        self,
        a: (&'a Sources, &'a Manifest),
        b: (&'a Sources, &'a Manifest),
        limits: &'a Limits,
        progress: &'a mut (dyn FnMut(u64) + Send + 'a),
    ) -> BoxFuture<'a, Result<Difference, DiffError>> {
        Box::pin(async move {
            let Self { mut difference, parts } = self;
            let (send_a, received_a) = mpsc::channel(1);
            let (send_b, received_b) = mpsc::channel(1);
            let (layout, to_compare) = (a.1.layout.clone(), parts.clone());
            let comparing = tokio::task::spawn_blocking(move || {
                compare(&layout, &to_compare, StateFeed::new(received_a), StateFeed::new(received_b))
            });
            let mut no_progress = |_| {};
            tokio::try_join!(
                read_ranges(
                    a,
                    join_ranges(parts.iter().map(|part| part.a.clone())),
                    limits,
                    send_a,
                    progress
                ),
                read_ranges(
                    b,
                    join_ranges(parts.iter().map(|part| part.b.clone())),
                    limits,
                    send_b,
                    &mut no_progress
                ),
            )?;
            let object = a.0.primary().uri().to_owned();
            let changed = comparing.await.map_err(|source| StoreError::CutOff { object, source })?;
            difference.equal -= changed.len();
            let tensor = |(index, values): (usize, _)| (a.1.layout.tensors()[index].clone(), values);
            difference.changed = changed.into_iter().map(tensor).collect();
            Ok(difference)
        })
    }
}
