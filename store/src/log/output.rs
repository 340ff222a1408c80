//! The workers' output: the lines that they print, kept in the run's directory in chunks.
//!
//! The coordinator writes one sequence of chunks for each term, `output/epoch-<epoch>/<sequence>.txt`.

use std::{collections::HashMap, future::ready};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::run_dir::RunDir;
use crate::object::{Listed, StoreError};

/// No chunk has more bytes.
const MOST_BYTES: u64 = 64 << 20;

/// Chunks read or copied concurrently.
const CONCURRENCY: usize = 16;

impl RunDir {
    /// Writes a chunk of the output of a term. Writing it again is harmless.
    pub async fn put_output(&self, epoch: u64, sequence: u64, text: Bytes) -> Result<(), StoreError> {
        self.folder().replace(&name(epoch, sequence), text).await
    }

    /// The chunks of the output of all terms, in the order in which they were written.
    pub async fn output(&self) -> Result<Vec<Bytes>, StoreError> {
        let listing = self.folder().list("output").await?;
        let mut chunks: Vec<_> = listing.iter().filter_map(|object| position(&object.name)).collect();
        chunks.sort_unstable();
        let reads = chunks.into_iter().map(|(epoch, sequence)| async move {
            self.folder().get(&name(epoch, sequence), MOST_BYTES).await
        });
        stream::iter(reads).buffered(CONCURRENCY).try_filter_map(|chunk| ready(Ok(chunk))).try_collect().await
    }
}

/// The object name of a chunk.
fn name(epoch: u64, sequence: u64) -> String {
    format!("output/epoch-{epoch}/{sequence:08}.txt")
}

/// The epoch and the sequence number of the chunk with this object name.
fn position(name: &str) -> Option<(u64, u64)> {
    let (epoch, sequence) = name.strip_prefix("output/epoch-")?.strip_suffix(".txt")?.split_once('/')?;
    let position = (epoch.parse().ok()?, sequence.parse().ok()?);
    (self::name(position.0, position.1) == name).then_some(position)
}

/// The output objects that `destination` lacks, or has in another length.
pub(crate) async fn missing(source: &RunDir, destination: &RunDir) -> Result<Vec<Listed>, StoreError> {
    let there = destination.folder().list("output").await?;
    let there: HashMap<String, u64> =
        there.into_iter().map(|object| (object.name, object.meta.size)).collect();
    let here = source.folder().list("output").await?.into_iter();
    let lacks = |object: &Listed| there.get(&object.name) != Some(&object.meta.size);
    Ok(here.filter(lacks).collect())
}

/// Copies the output objects that `destination` lacks. `copied` is called with the number of bytes of each.
pub(crate) async fn copy(
    source: &RunDir,
    destination: &RunDir,
    mut copied: impl FnMut(u64),
) -> Result<(), StoreError> {
    let copies = missing(source, destination).await?.into_iter().map(|Listed { name, .. }| async move {
        let Some(text) = source.folder().get(&name, MOST_BYTES).await? else { return Ok(None) };
        let bytes = text.len() as u64;
        destination.folder().replace(&name, text).await?;
        Ok(Some(bytes))
    });
    let mut copies = stream::iter(copies).buffer_unordered(CONCURRENCY);
    while let Some(bytes) = copies.try_next().await? {
        bytes.into_iter().for_each(&mut copied);
    }
    Ok(())
}
