//! Reading ahead: blocks of many packs are read in parallel and returned in the state's order.
//!
//! Packs are cut into *planned reads* of a few consecutive blocks. Each is read by a task of its own, which finishes
//! and releases its transfer slot even if the caller takes the bytes slowly. A memory budget, counted in blocks, bounds
//! what has been read and not yet taken.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use whimbrel_state::{Manifest, Pack, blocks};

use crate::{
    checkpoint::{
        bad_pack::ReadPackError,
        extent::{Extent, all_blocks, blocks_holding},
        source_reader::{SourceFaults, SourceReader},
        sources::Sources,
    },
    object::{Limits, StoreError, task},
};

/// Blocks of a pack that are read in one request.
const BLOCKS_PER_READ: u64 = 2;

/// Blocks to be read in one request, and the bytes that are wanted of them.
#[derive(Clone, Debug)]
pub(crate) struct PlannedRead {
    extent: Extent,
    /// Bytes of the pack that are wanted, in the state's order.
    wanted: Vec<Range<u64>>,
    is_first_of_pack: bool,
}

impl PlannedRead {
    /// Whether it is the first read of its pack.
    pub(crate) fn is_first_of_pack(&self) -> bool {
        self.is_first_of_pack
    }

    /// Bytes that it reads.
    pub(crate) fn bytes(&self) -> u64 {
        self.extent.bytes()
    }

    /// Its share of the memory budget, in blocks.
    fn weight(&self) -> u64 {
        self.bytes().div_ceil(blocks::BLOCK).max(1)
    }

    async fn run(self, mut reader: SourceReader) -> Result<Vec<Bytes>, ReadPackError> {
        let mut blocks = Vec::new();
        while let Some(block) = reader.next().await? {
            blocks.push(block);
        }
        let mut bytes = Vec::new();
        for range in &self.wanted {
            let after = blocks.partition_point(|block| block.range().end <= range.start);
            let holding = blocks[after..].iter().take_while(|block| block.range().start < range.end);
            bytes.extend(holding.map(|block| block.slice(range)));
        }
        Ok(bytes)
    }
}

/// Plans the reads of a pack. `wanted` are bytes of the pack in the state's order. With `all`, every block is read;
/// otherwise only blocks that hold wanted bytes.
fn plan(pack: &Arc<Pack>, wanted: &[Range<u64>], all: bool) -> Vec<PlannedRead> {
    let read = |blocks, wanted| PlannedRead {
        extent: Extent { pack: Arc::clone(pack), blocks },
        wanted,
        is_first_of_pack: false,
    };
    let known = all_blocks(pack);
    let holding = |range: &Range<u64>| blocks_holding(pack, range);
    // A pack orders tensors by element size. Where that is not the state's order, all wanted blocks are one read: they
    // are held until the bytes can be put in order.
    if !wanted.is_sorted_by(|a, b| a.end <= b.start) {
        let first = wanted.iter().map(|range| holding(range).start).min().unwrap_or(0);
        let last = wanted.iter().map(|range| holding(range).end).max().unwrap_or(known.end);
        return vec![read(if all { known } else { first..last }, wanted.to_vec())];
    }
    let mut reads: Vec<PlannedRead> = Vec::new();
    if all {
        let starts = known.clone().step_by(BLOCKS_PER_READ as usize);
        reads.extend(starts.map(|start| read(start..(start + BLOCKS_PER_READ).min(known.end), Vec::new())));
    }
    for range in wanted {
        for index in holding(range) {
            let block = pack.block(index);
            let part = range.start.max(block.start)..range.end.min(block.end);
            if !all && reads.last().is_none_or(|read| index >= read.extent.blocks.start + BLOCKS_PER_READ) {
                reads.push(read(index..index + 1, Vec::new()));
            }
            let at = if all { (index / BLOCKS_PER_READ) as usize } else { reads.len() - 1 };
            if let Some(read) = reads.get_mut(at) {
                read.extent.blocks.end = read.extent.blocks.end.max(index + 1);
                read.wanted.push(part);
            }
        }
    }
    reads
}

/// A read that has ended.
#[derive(Debug)]
pub(crate) struct Completed {
    pub(crate) read: PlannedRead,
    /// The wanted bytes, in the state's order.
    pub(crate) bytes: Result<Vec<Bytes>, ReadPackError>,
    /// The read's share of the memory budget. Hold it as long as the bytes.
    pub(crate) memory: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct InFlight {
    read: PlannedRead,
    memory: Option<OwnedSemaphorePermit>,
    task: AbortOnDropHandle<Result<Vec<Bytes>, ReadPackError>>,
}

/// Reads packs of a checkpoint ahead of the caller.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    sources: Sources,
    faults: Arc<SourceFaults>,
    /// Wanted bytes of the state.
    range: Range<u64>,
    /// Whether blocks that hold no wanted bytes are read too.
    all: bool,
    limits: Limits,
    packs: VecDeque<Pack>,
    planned: VecDeque<PlannedRead>,
    /// In the order in which they are returned.
    in_flight: VecDeque<InFlight>,
    /// Blocks that may be in memory.
    budget: Arc<Semaphore>,
}

impl ReadAhead {
    /// Reads the blocks that hold the bytes `range` of the state.
    pub(crate) fn of_range(
        sources: &Sources,
        manifest: &Manifest,
        range: Range<u64>,
        limits: &Limits,
    ) -> Self {
        let holds =
            |pack: &&Pack| pack.pieces.iter().any(|piece| !overlap(piece.state_range(), &range).is_empty());
        let packs = manifest.packs.iter().filter(holds).cloned().collect();
        Self::new(sources, packs, range, false, limits)
    }

    /// Reads every block of these packs of a checkpoint, headers included. All bytes of the state are wanted.
    pub(crate) fn of_packs(
        sources: &Sources,
        manifest: &Manifest,
        packs: VecDeque<Pack>,
        limits: &Limits,
    ) -> Self {
        Self::new(sources, packs, 0..manifest.layout.bytes() as u64, true, limits)
    }

    fn new(sources: &Sources, packs: VecDeque<Pack>, range: Range<u64>, all: bool, limits: &Limits) -> Self {
        let budget = BLOCKS_PER_READ as usize * limits.concurrency.clamp(1, 1 << 10);
        Self {
            sources: sources.clone(),
            faults: SourceFaults::new(sources),
            range,
            all,
            limits: *limits,
            packs,
            planned: VecDeque::new(),
            in_flight: VecDeque::new(),
            budget: Arc::new(Semaphore::new(budget)),
        }
    }

    /// What the sources were found to lack.
    pub(crate) fn faults(&self) -> &SourceFaults {
        &self.faults
    }

    /// The next read, in the state's order, when it has ended; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Completed>, StoreError> {
        while self.in_flight.len() < self.limits.concurrency.max(1) && self.plan_more() && self.start_next() {
        }
        let Some(InFlight { read, memory, task }) = self.in_flight.pop_front() else { return Ok(None) };
        let object = || self.sources.primary().uri().to_owned();
        let bytes = task.await.map_err(|source| StoreError::CutOff { object: object(), source })?;
        Ok(Some(Completed { read, bytes, memory }))
    }

    /// Starts the next planned read if the memory budget allows it. With no read in flight it is always started.
    fn start_next(&mut self) -> bool {
        let Some(read) = self.planned.front() else { return false };
        let weight = u32::try_from(read.weight()).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.budget).try_acquire_many_owned(weight).ok();
        if memory.is_none() && !self.in_flight.is_empty() {
            return false;
        }
        let Some(read) = self.planned.pop_front() else { return false };
        let concurrency = self.limits.concurrency;
        let reader = SourceReader::new(&self.sources, &self.faults, read.extent.clone(), concurrency);
        let task = task::spawn(read.clone().run(reader));
        self.in_flight.push_back(InFlight { read, memory, task });
        true
    }

    /// Plans the reads of the next pack if none is planned; `false` if no pack is left.
    fn plan_more(&mut self) -> bool {
        while self.planned.is_empty() {
            let Some(pack) = self.packs.pop_front() else { return false };
            let pack = Arc::new(pack);
            let wanted = pack.pieces.iter().filter_map(|piece| {
                let wanted = overlap(piece.state_range(), &self.range);
                let start = piece.offset + (wanted.start - piece.start.min(wanted.start));
                (!wanted.is_empty()).then(|| start..start + (wanted.end - wanted.start))
            });
            let wanted: Vec<Range<u64>> = wanted.collect();
            self.planned.extend(plan(&pack, &wanted, self.all));
            if let Some(first) = self.planned.front_mut() {
                first.is_first_of_pack = true;
            }
        }
        true
    }
}

/// The part that two ranges share; an empty range if they share nothing.
fn overlap(a: Range<u64>, b: &Range<u64>) -> Range<u64> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
