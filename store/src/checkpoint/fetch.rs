//! Reading packs: no byte leaves here that is not what was put.
//!
//! A pack is read block by block, in one request for all that is wanted of it. A block is hashed as it comes in, while
//! its bytes are still in the processor's cache; how many come in at a time is up to who reads. A request that is cut or
//! stalls is made again from the last block that came.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{Error, GetResultPayload, PutPayload};
use tokio::{task::spawn_blocking, time::timeout};
use whimbrel_state::{
    Hash, Pack,
    blocks::{BLOCK, BlockHasher},
};

use crate::{
    checkpoint::pack,
    object::{
        buffers::Buffer,
        flow_control::{Direction, Permit},
        folder::{Folder, StoreError},
        retry::Failure,
        task,
    },
};

/// A pack that the store does not have as it was put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPack {
    /// There is no such object.
    #[error("pack {pack} is not in the store")]
    Missing {
        /// The pack.
        pack: Hash,
    },
    /// Its bytes are not those that were put, as two reads found.
    #[error("pack {pack} is damaged: bytes {} to {} of it are not those that were put", bytes.start, bytes.end)]
    Damaged {
        /// The pack, whose name is the hash its bytes should have.
        pack: Hash,
        /// The first part found to be bad.
        bytes: Range<u64>,
    },
    /// Its length is not that of what was put.
    #[error("pack {pack} is damaged: it is {found} bytes long and should be {expected}")]
    WrongLength {
        /// The pack.
        pack: Hash,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes in the store.
        found: u64,
    },
}

impl BadPack {
    /// Which pack.
    pub fn pack(&self) -> Hash {
        let (Self::Missing { pack } | Self::Damaged { pack, .. } | Self::WrongLength { pack, .. }) = self;
        *pack
    }
}

/// Why a pack, or part of one, was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The store does not have it as it was put.
    Bad(BadPack),
    /// A request failed; the pack may be good.
    Store(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Bytes hashed at a time as they come: few enough to be in the cache still, enough for all of a processor's lanes.
const STRIDE: usize = 256 << 10;

/// Verified bytes of a pack.
#[derive(Debug)]
pub(crate) struct Block {
    /// Which of the pack's blocks.
    pub(crate) index: u64,
    /// The bytes of the pack.
    range: Range<u64>,
    bytes: Bytes,
}

impl Block {
    /// The bytes of the pack that it is.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Its bytes that lie in a range of the pack, which must touch it, without copying them.
    pub(crate) fn slice(&self, range: &Range<u64>) -> Bytes {
        let (start, end) = (range.start.max(self.range.start), range.end.min(self.range.end));
        self.bytes.slice((start - self.range.start) as usize..(end - self.range.start) as usize)
    }
}

/// Reads consecutive blocks of a pack from one store.
#[derive(Debug)]
pub(crate) struct BlockReader {
    folder: Folder,
    pack: Arc<Pack>,
    name: String,
    /// Transfers that are allowed at a time.
    upper: usize,
    /// The blocks that have yet to come in.
    wanted: Range<u64>,
    body: Option<Body>,
    /// A wrong length was seen once: listings and heads may lag, and so may what answers a read.
    looked_again: bool,
}

/// What a request brings.
struct Body {
    source: Source,
    /// Bytes that came with the block before.
    ahead: Bytes,
    _permit: Permit,
}

enum Source {
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
    /// Where the store is a folder.
    File(Arc<File>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

/// Why an attempt brought no block.
enum Miss {
    Failed(Failure),
    Bad(BadPack),
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl BlockReader {
    /// Reads blocks `wanted` of the pack; one of which no blocks are known is block 0.
    pub(crate) fn new(folder: &Folder, pack: &Arc<Pack>, wanted: Range<u64>, upper: usize) -> Self {
        Self {
            folder: folder.clone(),
            pack: Arc::clone(pack),
            name: pack::name(&pack.hash),
            upper,
            wanted,
            body: None,
            looked_again: false,
        }
    }

    /// The next block; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Block>, Unread> {
        if self.wanted.is_empty() {
            return Ok(None);
        }
        let index = self.wanted.start;
        // Boxed, as what else awaits requests here: whoever reads packs has futures enough to carry.
        if let Some(block) = Box::pin(self.receive()).await? {
            return Ok(Some(block));
        }
        // Reads carry no checksum of their own: what the network did passes, what the store did stays.
        let (object, range) = (self.folder.uri_of(&self.name), self.pack.block(index));
        tracing::warn!(object, ?range, "other bytes than were put: reading them again");
        // One permit at a time, or readers could wait for each other.
        self.body = None;
        let mut again = Self::new(&self.folder, &self.pack, index..index + 1, self.upper);
        match Box::pin(again.receive()).await? {
            Some(block) => Ok(Some(block)),
            None => Err(Unread::Bad(BadPack::Damaged { pack: self.pack.hash, bytes: range })),
        }
    }

    /// Lets the next block come in; `None` if it came with other bytes than were put.
    async fn receive(&mut self) -> Result<Option<Block>, Unread> {
        let mut retry = self.folder.retry("read", &self.name);
        loop {
            let started = self.folder.flow_control().start();
            let miss = match self.attempt().await {
                Ok((buffer, found)) => {
                    let (index, length) = (self.wanted.start, buffer.as_ref().len() as u64);
                    self.folder.flow_control().succeeded(Direction::Download, started, length);
                    self.wanted.start += 1;
                    if self.wanted.is_empty() {
                        self.body = None;
                    }
                    let is_good = found == *self.pack.blocks.get(index as usize).unwrap_or(&self.pack.hash);
                    let (range, bytes) = (self.pack.block(index), Bytes::from_owner(buffer));
                    return Ok(is_good.then_some(Block { index, range, bytes }));
                }
                Err(miss) => miss,
            };
            self.body = None;
            match miss {
                Miss::Failed(failure) => {
                    if failure.is_push_back() {
                        self.folder.flow_control().pushed_back(Direction::Download, started);
                    }
                    retry.after(failure).await?;
                }
                Miss::Bad(BadPack::WrongLength { .. }) if !self.looked_again => self.looked_again = true,
                Miss::Bad(bad) => return Err(Unread::Bad(bad)),
            }
        }
    }

    /// Has the next block come in, from the request under way or from a new one: its bytes, and what they hash to.
    async fn attempt(&mut self) -> Result<(Buffer, Hash), Miss> {
        let (index, range) = (self.wanted.start, self.pack.block(self.wanted.start));
        let length = range.end - range.start;
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let retry_policy = self.folder.retry_policy();
        let deadline = retry_policy.answer
            + self.folder.flow_control().transfer_time(Direction::Download, length, retry_policy.slowest);
        // Not before the object is known to be as long as it should.
        let buffer = self.folder.buffers().take(length as usize);
        // Of a pack whose blocks are not known the one block is the whole.
        let whole = if self.pack.blocks.is_empty() { 0 } else { self.pack.length };
        let hasher = BlockHasher::new(index, whole);
        // A folder on a network's file system falls silent as any store does.
        let receiving = async {
            match &mut body.source {
                Source::File(file) => take_of_file(Arc::clone(file), range.start, buffer, hasher).await,
                Source::Stream(stream) => take(stream, &mut body.ahead, buffer, hasher).await,
            }
        };
        let received = timeout(deadline, receiving).await;
        let received = received.map_err(|_| Failure::Silence(deadline))?.map_err(Failure::Error)?;
        self.body = Some(body);
        Ok(received)
    }

    /// Makes the request for all that is still wanted.
    async fn open(&mut self) -> Result<Body, Miss> {
        let permit = self.folder.flow_control().acquire(Direction::Download, self.upper).await;
        let pack = self.pack.hash;
        let last = self.wanted.end.saturating_sub(1);
        let range = self.pack.block(self.wanted.start).start..self.pack.block(last).end;
        let part = (range != (0..self.pack.length)).then(|| range.clone());
        let is_part = part.is_some();
        let wrong_length =
            |found| Miss::Bad(BadPack::WrongLength { pack, expected: self.pack.length, found });
        let found = match self.folder.open(&self.name, part).await {
            Ok(found) => found,
            Err(Failure::Error(Error::NotFound { .. })) => return Err(Miss::Bad(BadPack::Missing { pack })),
            // Past the end of an object that was cut short there is nothing to be had, and servers say so in many ways.
            Err(failure @ Failure::Error(_)) if is_part && !failure.is_push_back() => {
                return match self.folder.head(&self.name).await {
                    Ok(Some(meta)) if meta.size != self.pack.length => Err(wrong_length(meta.size)),
                    _ => Err(failure.into()),
                };
            }
            Err(failure) => return Err(failure.into()),
        };
        if found.meta.size != self.pack.length {
            return Err(wrong_length(found.meta.size));
        }
        let source = match found.payload {
            GetResultPayload::File(file, _) => Source::File(Arc::new(file)),
            GetResultPayload::Stream(stream) => Source::Stream(stream),
        };
        Ok(Body { source, ahead: Bytes::new(), _permit: permit })
    }
}

/// Fills a buffer from a file. A read that nobody waits for any more keeps its thread until the file system answers.
async fn take_of_file(
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

/// Fills a buffer from a stream; `ahead` is what came too early, before and after.
async fn take(
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

/// The body of an answer ended before it should.
fn ended() -> Error {
    Error::Generic { store: "store", source: io::Error::from(io::ErrorKind::UnexpectedEof).into() }
}

/// The blocks of a pack, by their number.
pub(crate) fn all_blocks(pack: &Pack) -> Range<u64> {
    0..(pack.blocks.len() as u64).max(1)
}

/// The blocks of a pack that hold a range of its bytes.
pub(crate) fn blocks_holding(pack: &Pack, range: &Range<u64>) -> Range<u64> {
    match all_blocks(pack) {
        known if known.end == 1 => known,
        _ => range.start / BLOCK..range.end.div_ceil(BLOCK),
    }
}

/// Reads a whole pack, ready to be put elsewhere.
pub(crate) async fn fetch(folder: &Folder, pack: &Pack) -> Result<Result<PutPayload, BadPack>, StoreError> {
    let blocks = each_block(folder, pack, |block| block.bytes).await?;
    Ok(blocks.map(|blocks| blocks.into_iter().collect()))
}

/// Reads a whole pack and keeps nothing of it: is it as it was put?
pub(crate) async fn check(folder: &Folder, pack: &Pack) -> Result<Result<(), BadPack>, StoreError> {
    let blocks = each_block(folder, pack, drop).await?;
    Ok(blocks.map(|_| ()))
}

/// What `keep` keeps of each block of a pack. The pack is read in a task of its own, which ends when nobody waits for it
/// any more: blocks are hashed as they come in, and whoever reads several packs has all processors for it.
async fn each_block<T: Send + 'static>(
    folder: &Folder,
    pack: &Pack,
    keep: impl Fn(Block) -> T + Send + 'static,
) -> Result<Result<Vec<T>, BadPack>, StoreError> {
    let pack = Arc::new(pack.clone());
    // Who reads whole packs says by that how many there are at a time.
    let mut reader = BlockReader::new(folder, &pack, all_blocks(&pack), usize::MAX);
    let reading = task::spawn(async move {
        let mut kept = Vec::new();
        while let Some(block) = reader.next().await? {
            kept.push(keep(block));
        }
        Ok(kept)
    });
    let object = || folder.uri_of(&pack::name(&pack.hash));
    match reading.await.map_err(|source| StoreError::CutOff { object: object(), source })? {
        Ok(kept) => Ok(Ok(kept)),
        Err(Unread::Bad(bad)) => Ok(Err(bad)),
        Err(Unread::Store(error)) => Err(error),
    }
}
