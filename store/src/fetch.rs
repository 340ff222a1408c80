//! Reading packs: no byte leaves here that is not what was put.
//!
//! A pack is read block by block, in one request for all that is wanted of it. While a block is hashed off the async
//! threads the next one comes in, so a reader holds two, and a third while its caller has it. A request that is cut or
//! stalls is made again from the last block that came.

use std::{collections::VecDeque, fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{Error, GetResultPayload, PutPayload};
use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::timeout,
};
use whimbrel_state::{
    Hash, Pack,
    blocks::{BLOCK, BlockHasher},
};

use crate::{
    folder::{Folder, StoreError},
    pace::{Permit, Way},
    pack,
    tries::Failure,
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

/// Verified bytes of a pack.
#[derive(Debug)]
pub(crate) struct Block {
    /// Which of the pack's blocks.
    pub(crate) index: u64,
    /// The bytes of the pack.
    range: Range<u64>,
    /// As they came, each with the byte of the pack at which it starts.
    parts: Vec<(u64, Bytes)>,
}

impl Block {
    fn new(index: u64, range: Range<u64>, parts: Vec<Bytes>) -> Self {
        let mut at = range.start;
        let placed = parts.into_iter().map(|part| {
            let start = at;
            at += part.len() as u64;
            (start, part)
        });
        let parts = placed.collect();
        Self { index, range, parts }
    }

    /// The bytes of the pack that it is.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Its bytes that lie in a range of the pack, in order, without copying them.
    pub(crate) fn slices(&self, range: Range<u64>) -> impl Iterator<Item = Bytes> + '_ {
        let after = self.parts.partition_point(|(start, part)| start + part.len() as u64 <= range.start);
        let end = range.end;
        self.parts[after..].iter().take_while(move |(start, _)| *start < end).map(move |(start, part)| {
            let from = range.start.saturating_sub(*start) as usize;
            part.slice(from..part.len().min((range.end - start) as usize))
        })
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
    /// Blocks that have come in, the first one first.
    hashing: VecDeque<(u64, Hashing)>,
    /// A wrong length was seen once: listings and heads may lag, and so may what answers a read.
    looked_again: bool,
}

/// A block's bytes and what they hash to.
type Hashing = JoinHandle<(Vec<Bytes>, Hash)>;

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

/// Why what came in is no block.
enum Flaw {
    /// Its bytes are not those that were put.
    Other,
    /// The runtime is shutting down.
    CutOff(JoinError),
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
            hashing: VecDeque::new(),
            looked_again: false,
        }
    }

    /// The next block; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Block>, Unread> {
        while !self.wanted.is_empty() && self.hashing.len() < 2 {
            // Boxed, as what else awaits requests here: whoever reads packs has futures enough to carry.
            Box::pin(self.receive()).await?;
        }
        let Some((index, hashing)) = self.hashing.pop_front() else { return Ok(None) };
        let range = self.pack.block(index);
        let object = self.folder.uri_of(&self.name);
        match self.verified(index, hashing).await {
            Ok(block) => return Ok(Some(block)),
            Err(Flaw::CutOff(source)) => return Err(StoreError::CutOff { object, source }.into()),
            // Reads carry no checksum of their own: what the network did passes, what the store did stays.
            Err(Flaw::Other) => {
                tracing::warn!(object, ?range, "other bytes than were put: reading them again")
            }
        }
        // One permit at a time, or readers could wait for each other.
        self.body = None;
        let mut again = Self::new(&self.folder, &self.pack, index..index + 1, self.upper);
        Box::pin(again.receive()).await?;
        let Some((_, hashing)) = again.hashing.pop_front() else { return Ok(None) };
        match again.verified(index, hashing).await {
            Ok(block) => Ok(Some(block)),
            Err(Flaw::Other) => Err(Unread::Bad(BadPack::Damaged { pack: self.pack.hash, bytes: range })),
            Err(Flaw::CutOff(source)) => Err(StoreError::CutOff { object, source }.into()),
        }
    }

    /// The block, if it is as it was put.
    async fn verified(&mut self, index: u64, hashing: Hashing) -> Result<Block, Flaw> {
        let (parts, found) = hashing.await.map_err(Flaw::CutOff)?;
        let expected = self.pack.blocks.get(index as usize).unwrap_or(&self.pack.hash);
        if found != *expected {
            return Err(Flaw::Other);
        }
        Ok(Block::new(index, self.pack.block(index), parts))
    }

    /// Lets the next block come in, and hands it to be hashed.
    async fn receive(&mut self) -> Result<(), Unread> {
        let mut tries = self.folder.tries("read", &self.name);
        loop {
            let began = self.folder.pace().begin();
            let miss = match self.attempt().await {
                Ok((length, hashing)) => {
                    self.folder.pace().succeeded(Way::Down, began, length);
                    self.hashing.push_back((self.wanted.start, hashing));
                    self.wanted.start += 1;
                    if self.wanted.is_empty() {
                        self.body = None;
                    }
                    return Ok(());
                }
                Err(miss) => miss,
            };
            self.body = None;
            match miss {
                Miss::Failed(failure) => {
                    if failure.is_push_back() {
                        self.folder.pace().pushed_back(Way::Down, began);
                    }
                    tries.after(failure).await?;
                }
                Miss::Bad(BadPack::WrongLength { .. }) if !self.looked_again => self.looked_again = true,
                Miss::Bad(bad) => return Err(Unread::Bad(bad)),
            }
        }
    }

    /// Has the next block come in, from the request under way or from a new one.
    async fn attempt(&mut self) -> Result<(u64, Hashing), Miss> {
        let (index, range) = (self.wanted.start, self.pack.block(self.wanted.start));
        let length = range.end - range.start;
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let patience = self.folder.patience();
        let deadline = patience.answer + self.folder.pace().allowance(Way::Down, length, patience.slowest);
        // A folder on a network's file system falls silent as any store does.
        let receiving = async {
            match &mut body.source {
                Source::File(file) => take_of_file(Arc::clone(file), range).await,
                Source::Stream(stream) => take(stream, &mut body.ahead, length).await,
            }
        };
        let parts = timeout(deadline, receiving).await;
        let parts = parts.map_err(|_| Failure::Silence(deadline))?.map_err(Failure::Error)?;
        let pack = Arc::clone(&self.pack);
        let hashing = spawn_blocking(move || {
            let hash = hash(&pack, index, parts.iter().map(Bytes::as_ref));
            (parts, hash)
        });
        self.body = Some(body);
        Ok((length, hashing))
    }

    /// Makes the request for all that is still wanted.
    async fn open(&mut self) -> Result<Body, Miss> {
        let permit = self.folder.pace().enter(Way::Down, self.upper).await;
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

/// Reads a range of a file. A read that nobody waits for any more keeps its thread until the file system answers.
async fn take_of_file(file: Arc<File>, range: Range<u64>) -> object_store::Result<Vec<Bytes>> {
    let reading = spawn_blocking(move || {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).map(|()| vec![bytes.into()])
    });
    let read = reading.await.map_err(|source| Error::JoinError { source })?;
    read.map_err(|error| Error::Generic { store: "file", source: error.into() })
}

/// Takes `length` bytes off a stream; `ahead` is what came too early, before and after.
async fn take(
    stream: &mut BoxStream<'static, object_store::Result<Bytes>>,
    ahead: &mut Bytes,
    length: u64,
) -> object_store::Result<Vec<Bytes>> {
    let (mut parts, mut left) = (Vec::new(), length as usize);
    while left > 0 {
        if ahead.is_empty() {
            *ahead = stream.next().await.ok_or_else(ended)??;
        }
        let part = ahead.split_to(left.min(ahead.len()));
        left -= part.len();
        parts.push(part);
    }
    Ok(parts)
}

/// The body of an answer ended before it should.
fn ended() -> Error {
    Error::Generic { store: "store", source: io::Error::from(io::ErrorKind::UnexpectedEof).into() }
}

fn hash<'a>(pack: &Pack, index: u64, parts: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    if pack.blocks.is_empty() {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        return hasher.finalize().into();
    }
    let mut hasher = BlockHasher::new(index, pack.length);
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finish()
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
    let mut parts = Vec::new();
    let read = each_block(folder, pack, |block| parts.extend(block.parts.into_iter().map(|(_, part)| part)));
    Ok(read.await?.map(|()| parts.into_iter().collect()))
}

/// Reads a whole pack and keeps nothing of it: is it as it was put?
pub(crate) async fn check(folder: &Folder, pack: &Pack) -> Result<Result<(), BadPack>, StoreError> {
    each_block(folder, pack, drop).await
}

async fn each_block(
    folder: &Folder,
    pack: &Pack,
    mut take: impl FnMut(Block),
) -> Result<Result<(), BadPack>, StoreError> {
    let pack = Arc::new(pack.clone());
    // Who reads whole packs says by that how many there are at a time.
    let mut reader = BlockReader::new(folder, &pack, all_blocks(&pack), usize::MAX);
    loop {
        match reader.next().await {
            Ok(Some(block)) => take(block),
            Ok(None) => return Ok(Ok(())),
            Err(Unread::Bad(bad)) => return Ok(Err(bad)),
            Err(Unread::Store(error)) => return Err(error),
        }
    }
}
