//! What the workers printed, in chunks.

use std::{collections::HashMap, future::ready};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    log::run_dir::RunDir,
    object::folder::{Listed, StoreError},
};

/// Bytes that a chunk stays below by far.
const MOST_BYTES: u64 = 64 << 20;

/// Chunks read at a time.
const AHEAD: usize = 16;

/// A chunk of what a worker printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    /// The worker, e.g. `w3`.
    pub worker: String,
    /// The chunk's place in the worker's output, from 0.
    pub sequence: u64,
    /// The text, as printed.
    pub text: Bytes,
}

impl RunDir {
    /// Stores a chunk of a worker's output. Storing it again is harmless.
    pub async fn put_output(&self, worker: &str, sequence: u64, text: Bytes) -> Result<(), StoreError> {
        // A slash would make two segments of it, and another worker's folder.
        let worker = worker.replace('/', "-");
        self.folder().replace(&format!("output/{worker}/{sequence:08}.txt"), text).await
    }

    /// The workers that have output here, `w2` before `w10`.
    pub async fn output_workers(&self) -> Result<Vec<String>, StoreError> {
        let mut workers = self.folder().inside("output").folders().await?;
        workers.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        Ok(workers)
    }

    /// The output of one worker, or of all, in order: worker by worker, chunk by chunk.
    pub async fn output(&self, worker: Option<&str>) -> Result<Vec<OutputChunk>, StoreError> {
        let prefix = match worker {
            Some(worker) => format!("output/{}", worker.replace('/', "-")),
            None => "output".to_owned(),
        };
        let mut chunks: Vec<(usize, String, u64, String)> = Vec::new();
        for object in self.folder().list(&prefix).await? {
            let mut segments = object.name.split('/').skip(1);
            let (Some(worker), Some(file)) = (segments.next(), segments.next()) else { continue };
            let Some(sequence) = file.strip_suffix(".txt").and_then(|digits| digits.parse().ok()) else {
                continue;
            };
            chunks.push((worker.len(), worker.to_owned(), sequence, object.name));
        }
        chunks.sort();
        let reads = chunks.into_iter().map(|(_, worker, sequence, name)| async move {
            let text = self.folder().get(&name, MOST_BYTES).await?;
            Ok(text.map(|text| OutputChunk { worker, sequence, text }))
        });
        stream::iter(reads).buffered(AHEAD).try_filter_map(|chunk| ready(Ok(chunk))).try_collect().await
    }
}

/// Names of the output objects that `source` has and `destination` has not, or not in their length.
pub(crate) async fn missing(source: &RunDir, destination: &RunDir) -> Result<Vec<String>, StoreError> {
    let there = destination.folder().list("output").await?;
    let there: HashMap<String, u64> =
        there.into_iter().map(|object| (object.name, object.meta.size)).collect();
    let here = source.folder().list("output").await?.into_iter();
    let lacks = |object: &Listed| there.get(&object.name) != Some(&object.meta.size);
    Ok(here.filter(lacks).map(|object| object.name).collect())
}

/// Copies the output objects that `destination` lacks; returns how many.
pub(crate) async fn copy(source: &RunDir, destination: &RunDir) -> Result<usize, StoreError> {
    let names = missing(source, destination).await?;
    let copies = names.into_iter().map(|name| async move {
        match source.folder().get(&name, MOST_BYTES).await? {
            Some(text) => destination.folder().replace(&name, text).await.map(|()| 1),
            None => Ok(0),
        }
    });
    stream::iter(copies).buffer_unordered(AHEAD).try_fold(0, |sum, one| ready(Ok(sum + one))).await
}
