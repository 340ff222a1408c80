//! Reading packs from one store. Every block is verified before it is returned.
//!
//! All reads of packs end here: restores, state readers and verification by way of a
//! [`SourceReader`](super::source_reader::SourceReader), copies and quarantine by [`read_pack`] and [`check_pack`].
//!
//! One request asks for all wanted blocks of a pack. A block is hashed as it arrives, while its bytes are still in the
//! processor's cache. A request that is cut or stalls is made again from the first block that did not arrive. A block
//! that arrives with other bytes than were put is read once more: what the network damaged is good then, what the store
//! damaged is not.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{Error, GetResultPayload, PutPayload};
use tokio::{task::spawn_blocking, time::timeout};
use whimbrel_state::{Hash, Pack, blocks::BlockHasher};

use crate::{
    checkpoint::{
        bad_pack::{BadPack, ReadPackError},
        extent::Extent,
        pack::pack_name,
    },
    object::{Buffer, Direction, Failure, Folder, Permit, StoreError, task},
};

/// Bytes hashed at a time as they arrive: few enough to be in the cache, enough for all SIMD lanes of a processor.
const STRIDE: usize = 256 << 10;

/// Verified bytes of a pack.
#[derive(Debug)]
pub(crate) struct Block {
    /// Its number in the pack.
    pub(crate) index: u64,
    /// Where it is, in bytes of the pack.
    range: Range<u64>,
    bytes: Bytes,
}

impl Block {
    /// Where it is, in bytes of the pack.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The part of it that lies in a range of the pack, without a copy. The range must overlap the block.
    pub(crate) fn slice(&self, range: &Range<u64>) -> Bytes {
        let (start, end) = (range.start.max(self.range.start), range.end.min(self.range.end));
        self.bytes.slice((start - self.range.start) as usize..(end - self.range.start) as usize)
    }
}

/// Reads an extent, block by block.
#[derive(Debug)]
pub(crate) struct BlockReader {
    folder: Folder,
    name: String,
    /// The most transfers from this store at a time.
    max_transfers: usize,
    /// The blocks that have not arrived yet.
    wanted: Extent,
    body: Option<Body>,
    /// A wrong length was seen once. It is believed the second time: answers of a store may lag behind a put.
    saw_wrong_length: bool,
}

/// The body of an answer.
struct Body {
    payload: Payload,
    /// Bytes that arrived together with the block before.
    ahead: Bytes,
    _permit: Permit,
}

enum Payload {
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
    /// Where the store is a local folder.
    File(Arc<File>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

/// Why an attempt returned no block.
enum AttemptError {
    Failed(Failure),
    Bad(BadPack),
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl BlockReader {
    pub(crate) fn new(folder: &Folder, wanted: Extent, max_transfers: usize) -> Self {
        let name = pack_name(&wanted.pack.hash);
        Self { folder: folder.clone(), name, max_transfers, wanted, body: None, saw_wrong_length: false }
    }

    /// The next block; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Block>, ReadPackError> {
        if self.wanted.blocks.is_empty() {
            return Ok(None);
        }
        let (pack, index) = (Arc::clone(&self.wanted.pack), self.wanted.blocks.start);
        // Boxed to keep the futures of callers small.
        if let Some(block) = Box::pin(self.receive()).await? {
            return Ok(Some(block));
        }
        let (object, range) = (self.folder.uri_of(&self.name), pack.block(index));
        tracing::warn!(object, ?range, "the bytes do not match their hash: reading them again");
        // The permit is released first: two readers that each hold one and need another would deadlock.
        self.body = None;
        let block = Extent { pack: Arc::clone(&pack), blocks: index..index + 1 };
        let mut again = Self::new(&self.folder, block, self.max_transfers);
        match Box::pin(again.receive()).await? {
            Some(block) => Ok(Some(block)),
            None => Err(ReadPackError::Bad(BadPack::Damaged { pack: pack.hash, bytes: range })),
        }
    }

    /// Receives the next block; `None` if its bytes do not match their hash.
    async fn receive(&mut self) -> Result<Option<Block>, ReadPackError> {
        let mut retry = self.folder.retry("read", &self.name);
        loop {
            let started = self.folder.flow_control().start();
            let error = match self.attempt().await {
                Ok((buffer, found)) => {
                    let (index, length) = (self.wanted.blocks.start, buffer.as_ref().len() as u64);
                    self.folder.flow_control().succeeded(Direction::Download, started, length);
                    self.wanted.blocks.start += 1;
                    if self.wanted.blocks.is_empty() {
                        self.body = None;
                    }
                    let pack = &self.wanted.pack;
                    let is_good = found == *pack.blocks.get(index as usize).unwrap_or(&pack.hash);
                    let (range, bytes) = (pack.block(index), Bytes::from_owner(buffer));
                    return Ok(is_good.then_some(Block { index, range, bytes }));
                }
                Err(error) => error,
            };
            self.body = None;
            match error {
                AttemptError::Failed(failure) => {
                    if failure.is_push_back() {
                        self.folder.flow_control().pushed_back(Direction::Download, started);
                    }
                    retry.after(failure).await?;
                }
                AttemptError::Bad(BadPack::WrongLength { .. }) if !self.saw_wrong_length => {
                    self.saw_wrong_length = true;
                }
                AttemptError::Bad(bad) => return Err(ReadPackError::Bad(bad)),
            }
        }
    }

    /// Receives the next block, from the open request or from a new one. Returns its bytes and their hash.
    async fn attempt(&mut self) -> Result<(Buffer, Hash), AttemptError> {
        let (pack, index) = (Arc::clone(&self.wanted.pack), self.wanted.blocks.start);
        let range = pack.block(index);
        let length = range.end - range.start;
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let retry_policy = self.folder.retry_policy();
        let deadline = retry_policy.answer
            + self.folder.flow_control().transfer_time(Direction::Download, length, retry_policy.slowest);
        // Allocated only now that the object is known to have the right length.
        let buffer = self.folder.buffers().take(length as usize);
        // A pack without block hashes is one block, hashed on its own.
        let whole = if pack.blocks.is_empty() { 0 } else { pack.length };
        let hasher = BlockHasher::new(index, whole);
        // Files have the deadline too: a network file system can hang.
        let receiving = async {
            match &mut body.payload {
                Payload::File(file) => fill_from_file(Arc::clone(file), range.start, buffer, hasher).await,
                Payload::Stream(stream) => fill_from_stream(stream, &mut body.ahead, buffer, hasher).await,
            }
        };
        let received = timeout(deadline, receiving).await;
        let received = received.map_err(|_| Failure::Silence(deadline))?.map_err(Failure::Error)?;
        self.body = Some(body);
        Ok(received)
    }

    /// Makes one request for all blocks that have not arrived.
    async fn open(&mut self) -> Result<Body, AttemptError> {
        let permit = self.folder.flow_control().acquire(Direction::Download, self.max_transfers).await;
        let Extent { pack, blocks } = &self.wanted;
        let (hash, expected) = (pack.hash, pack.length);
        let last = blocks.end.saturating_sub(1);
        let range = pack.block(blocks.start).start..pack.block(last).end;
        let part = (range != (0..expected)).then(|| range.clone());
        let is_part = part.is_some();
        let wrong_length = |found| AttemptError::Bad(BadPack::WrongLength { pack: hash, expected, found });
        let found = match self.folder.open(&self.name, part).await {
            Ok(found) => found,
            Err(Failure::Error(Error::NotFound { .. })) => {
                return Err(AttemptError::Bad(BadPack::Missing { pack: hash }));
            }
            // The range may reach past the end of an object that was cut short. Servers refuse that in many ways.
            Err(failure @ Failure::Error(_)) if is_part && !failure.is_push_back() => {
                return match self.folder.head(&self.name).await {
                    Ok(Some(meta)) if meta.size != expected => Err(wrong_length(meta.size)),
                    _ => Err(failure.into()),
                };
            }
            Err(failure) => return Err(failure.into()),
        };
        if found.meta.size != expected {
            return Err(wrong_length(found.meta.size));
        }
        let payload = match found.payload {
            GetResultPayload::File(file, _) => Payload::File(Arc::new(file)),
            GetResultPayload::Stream(stream) => Payload::Stream(stream),
        };
        Ok(Body { payload, ahead: Bytes::new(), _permit: permit })
    }
}

/// Fills a buffer from a file. A read that is given up keeps its thread until the file system answers.
async fn fill_from_file(
    file: Arc<File>,
    start: u64,
    mut buffer: Buffer,
    mut hasher: BlockHasher,
) -> object_store::Result<(Buffer, Hash)> {
    let reading = spawn_blocking(move || {
        let mut at = start;
        for stride in buffer.as_mut().chunks_mut(STRIDE) {
            file.read_exact_at(stride, at)?;
            hasher.update(stride);
            at += stride.len() as u64;
        }
        Ok((buffer, hasher.finish()))
    });
    let read = reading.await.map_err(|source| Error::JoinError { source })?;
    read.map_err(|error: io::Error| Error::Generic { store: "file", source: error.into() })
}

/// Fills a buffer from a stream. `ahead` holds bytes that arrived too early, before and after.
async fn fill_from_stream(
    stream: &mut BoxStream<'static, object_store::Result<Bytes>>,
    ahead: &mut Bytes,
    mut buffer: Buffer,
    mut hasher: BlockHasher,
) -> object_store::Result<(Buffer, Hash)> {
    for stride in buffer.as_mut().chunks_mut(STRIDE) {
        let mut filled = 0;
        while filled < stride.len() {
            if ahead.is_empty() {
                *ahead = stream.next().await.ok_or_else(ended)??;
            }
            let part = ahead.split_to((stride.len() - filled).min(ahead.len()));
            stride[filled..filled + part.len()].copy_from_slice(&part);
            filled += part.len();
        }
        hasher.update(stride);
    }
    Ok((buffer, hasher.finish()))
}

/// The error of a body that ends before it should.
fn ended() -> Error {
    Error::Generic { store: "store", source: io::Error::from(io::ErrorKind::UnexpectedEof).into() }
}

/// Reads a whole pack, ready to be put into another store.
pub(crate) async fn read_pack(folder: &Folder, pack: &Pack) -> Result<PutPayload, ReadPackError> {
    let blocks = read_blocks(folder, pack, |block| block.bytes).await?;
    Ok(blocks.into_iter().collect())
}

/// Reads a whole pack and discards its bytes, to find out whether it is good.
pub(crate) async fn check_pack(folder: &Folder, pack: &Pack) -> Result<(), ReadPackError> {
    read_blocks(folder, pack, drop).await.map(|_| ())
}

/// Reads a whole pack. Returns what `keep` makes of each block.
///
/// The pack is read in a task of its own, so that a caller that reads several packs hashes them on all processors. The
/// task ends when the returned future is dropped.
async fn read_blocks<T: Send + 'static>(
    folder: &Folder,
    pack: &Pack,
    keep: impl Fn(Block) -> T + Send + 'static,
) -> Result<Vec<T>, ReadPackError> {
    // No limit on transfers: the caller limits how many packs it reads at a time.
    let mut reader = BlockReader::new(folder, Extent::whole(Arc::new(pack.clone())), usize::MAX);
    let reading = task::spawn(async move {
        let mut kept = Vec::new();
        while let Some(block) = reader.next().await? {
            kept.push(keep(block));
        }
        Ok(kept)
    });
    let object = || folder.uri_of(&pack_name(&pack.hash));
    reading.await.map_err(|source| StoreError::CutOff { object: object(), source })?
}
