//! How two checkpoints differ, wherever they are and however they are packed.
//!
//! Tensors are compared by name. What hashes say is the same, whole packs or blocks of them at the same place, is not
//! read; the rest is read from both, verified, and compared element by element, in bounded memory.

mod unequal_parts;
mod values;

use std::{collections::HashMap, ops::Range};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use whimbrel_state::{Layout, Manifest, TensorSpec};

use self::unequal_parts::{Part, parts};
pub use self::values::Apart;
use crate::{
    checkpoint::{
        restore::RestoreError,
        save::Limits,
        sources::Sources,
        state_ranges::{self, join, read},
    },
    object::folder::StoreError,
};

/// Bytes compared at a time.
const STRIDE: usize = 256 << 10;

/// How two checkpoints differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Tensors that only the first has.
    pub only_in_a: Vec<TensorSpec>,
    /// Tensors that only the second has.
    pub only_in_b: Vec<TensorSpec>,
    /// Tensors whose type or shape is another: in the first and in the second.
    pub reshaped: Vec<(TensorSpec, TensorSpec)>,
    /// Tensors that hold other values.
    pub changed: Vec<(TensorSpec, Apart)>,
    /// How many tensors are the same, bit for bit.
    pub equal: usize,
    /// Bytes of each state that had to be compared.
    pub compared: u64,
    /// Bytes of each state that hashes say are the same.
    pub vouched: u64,
}

impl Difference {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.only_in_a.is_empty()
            && self.only_in_b.is_empty()
            && self.reshaped.is_empty()
            && self.changed.is_empty()
    }
}

/// Two checkpoints that could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// One of them could not be read.
    #[error(transparent)]
    Read(#[from] RestoreError),
    /// The runtime is shutting down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be compared before anything is read.
#[derive(Debug)]
pub struct DiffPlan {
    difference: Difference,
    parts: Vec<Part>,
}

impl DiffPlan {
    /// Compares manifests.
    pub fn new(a: &Manifest, b: &Manifest) -> Self {
        let mut difference = Difference::default();
        let index = |layout: &Layout| -> HashMap<String, usize> {
            layout.tensors().iter().enumerate().map(|(index, tensor)| (tensor.name.clone(), index)).collect()
        };
        let (in_a, in_b) = (index(&a.layout), index(&b.layout));
        let mut shared = Vec::new();
        for (at, tensor) in a.layout.tensors().iter().enumerate() {
            match in_b.get(&tensor.name).map(|&index| (index, &b.layout.tensors()[index])) {
                None => difference.only_in_a.push(tensor.clone()),
                Some((index, other)) if other == tensor => shared.push((at, index)),
                Some((_, other)) => difference.reshaped.push((tensor.clone(), other.clone())),
            }
        }
        let missing = b.layout.tensors().iter().filter(|tensor| !in_a.contains_key(&tensor.name));
        difference.only_in_b.extend(missing.cloned());
        let parts = parts(a, b, &shared);
        difference.equal = shared.len();
        difference.compared = parts.iter().map(|part| part.a.len() as u64).sum();
        let bytes: u64 = shared.iter().map(|&(index, _)| a.layout.range_of(index).len() as u64).sum();
        difference.vouched = bytes.saturating_sub(difference.compared);
        Self { difference, parts }
    }

    /// Bytes of each state that have to be compared.
    pub fn bytes(&self) -> u64 {
        self.difference.compared
    }

    /// Reads and compares. `progress` is told the bytes read of the first checkpoint.
    pub async fn carry_out(
        self,
        a: (&Sources, &Manifest),
        b: (&Sources, &Manifest),
        limits: &Limits,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Difference, DiffError> {
        let Self { mut difference, parts } = self;
        let (feed_a, fed_a) = mpsc::channel(1);
        let (feed_b, fed_b) = mpsc::channel(1);
        let (layout, compared) = (a.1.layout.clone(), parts.clone());
        let comparing = tokio::task::spawn_blocking(move || {
            compare(&layout, &compared, Feed::new(fed_a), Feed::new(fed_b))
        });
        let mut unreplicated = |_| {};
        tokio::try_join!(
            read(a, join(parts.iter().map(|part| part.a.clone())), limits, feed_a, progress),
            read(b, join(parts.iter().map(|part| part.b.clone())), limits, feed_b, &mut unreplicated),
        )?;
        let object = a.0.primary().uri().to_owned();
        let found = comparing.await.map_err(|source| StoreError::CutOff { object, source })?;
        difference.equal -= found.len();
        difference.changed =
            found.into_iter().map(|(index, apart)| (a.1.layout.tensors()[index].clone(), apart)).collect();
        Ok(difference)
    }
}

/// Compares what is fed of both states; the tensors that differ, by their index.
fn compare(layout: &Layout, parts: &[Part], mut a: Feed, mut b: Feed) -> Vec<(usize, Apart)> {
    let mut found: Vec<(usize, Apart)> = Vec::new();
    for part in parts {
        for (index, piece) in layout.pieces(part.a.clone()) {
            let dtype = layout.tensors()[index].dtype;
            let mut apart = Apart::default();
            let tensor = layout.range_of(index).start;
            let mut at = tensor + piece.start - part.a.start;
            let end = tensor + piece.end - part.a.start;
            while at < end {
                let next = end.min(at + STRIDE);
                // They end early only when a read has failed, which is told by the read.
                let (Some(a), Some(b)) = (a.take(&part.a, at..next), b.take(&part.b, at..next)) else {
                    return found;
                };
                apart.count(dtype, &a, &b);
                at = next;
            }
            match found.last_mut() {
                _ if apart == Apart::default() => {}
                Some((last, known)) if *last == index => known.add(apart),
                _ => found.push((index, apart)),
            }
        }
    }
    found
}

/// Parts of a state that come in order, taken in strides.
struct Feed {
    parts: mpsc::Receiver<state_ranges::Part>,
    /// The byte of the state at which `ahead` starts.
    at: usize,
    ahead: Bytes,
}

impl Feed {
    fn new(parts: mpsc::Receiver<state_ranges::Part>) -> Self {
        Self { parts, at: 0, ahead: Bytes::new() }
    }

    /// The bytes `stride`, counted from the start of `part`; `None` if there are no more. What comes before them is
    /// dropped. Blocks.
    fn take(&mut self, part: &Range<usize>, stride: Range<usize>) -> Option<Bytes> {
        let (start, length) = (part.start + stride.start, stride.len());
        while self.at + self.ahead.len() <= start {
            (self.at, self.ahead) = self.parts.blocking_recv()?;
        }
        self.skip(start - self.at);
        if self.ahead.len() >= length {
            return Some(self.skip(length));
        }
        let mut taken = BytesMut::with_capacity(length);
        while taken.len() < length {
            if self.ahead.is_empty() {
                (self.at, self.ahead) = self.parts.blocking_recv()?;
            }
            let part = self.skip(self.ahead.len().min(length - taken.len()));
            taken.extend_from_slice(&part);
        }
        Some(taken.freeze())
    }

    fn skip(&mut self, length: usize) -> Bytes {
        self.at += length;
        self.ahead.split_to(length)
    }
}
