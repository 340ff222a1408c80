//! Reading blocks of many packs at a time, and handing them over in the state's order.
//!
//! A *unit* is what is read in one go: a few consecutive blocks of a pack. Units are read ahead, each by a task of its
//! own, so that it gets on and lets go of its place among the transfers however slowly the bytes are taken; a budget of
//! blocks bounds what is in memory.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use whimbrel_state::{Manifest, Pack, blocks};

use crate::{
    checkpoint::{
        fetch::{Unread, all_blocks, blocks_holding},
        save::Limits,
        sources::{Findings, SourceReader, Sources},
    },
    object::{folder::StoreError, task},
};

/// Blocks of a pack that are read in one request.
const BLOCKS: u64 = 2;

/// Some blocks of a pack, and which of their bytes are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) pack: Arc<Pack>,
    blocks: Range<u64>,
    /// Bytes of the pack that are wanted, in the state's order.
    wanted: Vec<Range<u64>>,
    /// The first one of its pack.
    is_first: bool,
}

impl Unit {
    /// Whether it is the first one of its pack.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Bytes that are read for it.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.clone().map(|index| self.pack.block(index)).map(|range| range.end - range.start).sum()
    }

    /// Blocks' worth of memory that it takes.
    fn weight(&self) -> u64 {
        self.bytes().div_ceil(blocks::BLOCK).max(1)
    }

    async fn read(self, reader: SourceReader) -> Result<Vec<Bytes>, Unread> {
        let (mut reader, mut held) = (reader, Vec::new());
        while let Some(block) = reader.next().await? {
            held.push(block);
        }
        let mut bytes = Vec::new();
        for range in &self.wanted {
            let after = held.partition_point(|block| block.range().end <= range.start);
            let holding = held[after..].iter().take_while(|block| block.range().start < range.end);
            bytes.extend(holding.map(|block| block.slice(range)));
        }
        Ok(bytes)
    }
}

/// Cuts a pack into units that hold the bytes `wanted` of it, which are in the state's order; `all` of its blocks are in
/// one, or only those that hold some of these bytes.
fn cut(pack: &Arc<Pack>, wanted: &[Range<u64>], all: bool) -> Vec<Unit> {
    let unit = |blocks, wanted| Unit { pack: Arc::clone(pack), blocks, wanted, is_first: false };
    let known = all_blocks(pack);
    let holding = |range: &Range<u64>| blocks_holding(pack, range);
    // Packs put tensors of larger elements first: where that is another order than the state's, all that is wanted is
    // held until it can be put in order.
    if !wanted.is_sorted_by(|a, b| a.end <= b.start) {
        let first = wanted.iter().map(|range| holding(range).start).min().unwrap_or(0);
        let last = wanted.iter().map(|range| holding(range).end).max().unwrap_or(known.end);
        return vec![unit(if all { known } else { first..last }, wanted.to_vec())];
    }
    let mut units: Vec<Unit> = Vec::new();
    if all {
        let starts = known.clone().step_by(BLOCKS as usize);
        units.extend(starts.map(|start| unit(start..(start + BLOCKS).min(known.end), Vec::new())));
    }
    for range in wanted {
        for index in holding(range) {
            let block = pack.block(index);
            let part = range.start.max(block.start)..range.end.min(block.end);
            if !all && units.last().is_none_or(|unit| index >= unit.blocks.start + BLOCKS) {
                units.push(unit(index..index + 1, Vec::new()));
            }
            let at = if all { (index / BLOCKS) as usize } else { units.len() - 1 };
            if let Some(unit) = units.get_mut(at) {
                unit.blocks.end = unit.blocks.end.max(index + 1);
                unit.wanted.push(part);
            }
        }
    }
    units
}

/// What becomes of a unit.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) unit: Unit,
    /// What is wanted of it, in the state's order.
    pub(crate) bytes: Result<Vec<Bytes>, Unread>,
    /// To be held as long as the bytes are.
    pub(crate) memory: Option<OwnedSemaphorePermit>,
}

/// Reads units of a checkpoint in the state's order.
#[derive(Debug)]
pub(crate) struct Units {
    sources: Sources,
    findings: Arc<Findings>,
    range: Range<u64>,
    all: bool,
    limits: Limits,
    packs: VecDeque<Pack>,
    to_read: VecDeque<Unit>,
    /// The next one first.
    reading: VecDeque<Reading>,
    /// Blocks that may be in memory.
    budget: Arc<Semaphore>,
}

#[derive(Debug)]
struct Reading {
    unit: Unit,
    memory: Option<OwnedSemaphorePermit>,
    task: AbortOnDropHandle<Result<Vec<Bytes>, Unread>>,
}

impl Units {
    /// Units that hold the bytes `range` of the state; with `all`, whole packs.
    pub(crate) fn new(
        sources: &Sources,
        manifest: &Manifest,
        range: Range<u64>,
        all: bool,
        limits: &Limits,
    ) -> Self {
        let holds = |pack: &&Pack| {
            all || pack.pieces.iter().any(|piece| !overlap(piece.state_range(), &range).is_empty())
        };
        let packs: VecDeque<Pack> = manifest.packs.iter().filter(holds).cloned().collect();
        let budget = BLOCKS as usize * limits.concurrency.clamp(1, 1 << 10);
        Self {
            sources: sources.clone(),
            findings: Findings::new(sources),
            range,
            all,
            limits: *limits,
            packs,
            to_read: VecDeque::new(),
            reading: VecDeque::new(),
            budget: Arc::new(Semaphore::new(budget)),
        }
    }

    /// What the sources were found to lack.
    pub(crate) fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The unit that comes next; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Read>, StoreError> {
        while self.reading.len() < self.limits.concurrency.max(1) && self.cut_more() && self.begin() {}
        let Some(Reading { unit, memory, task }) = self.reading.pop_front() else { return Ok(None) };
        let object = || self.sources.primary().uri().to_owned();
        let bytes = task.await.map_err(|source| StoreError::CutOff { object: object(), source })?;
        Ok(Some(Read { unit, bytes, memory }))
    }

    /// Begins to read the unit that comes next, if there is memory for it. If none is being read there has to be.
    fn begin(&mut self) -> bool {
        let Some(unit) = self.to_read.front() else { return false };
        let weight = u32::try_from(unit.weight()).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.budget).try_acquire_many_owned(weight).ok();
        if memory.is_none() && !self.reading.is_empty() {
            return false;
        }
        let Some(unit) = self.to_read.pop_front() else { return false };
        let upper = self.limits.concurrency;
        let reader = SourceReader::new(&self.sources, &self.findings, &unit.pack, unit.blocks.clone(), upper);
        let task = task::spawn(unit.clone().read(reader));
        self.reading.push_back(Reading { unit, memory, task });
        true
    }

    /// Sees to it that there is a unit to read, if there is more to be read.
    fn cut_more(&mut self) -> bool {
        while self.to_read.is_empty() {
            let Some(pack) = self.packs.pop_front() else { return false };
            let pack = Arc::new(pack);
            let wanted = pack.pieces.iter().filter_map(|piece| {
                let wanted = overlap(piece.state_range(), &self.range);
                let start = piece.offset + (wanted.start - piece.start.min(wanted.start));
                (!wanted.is_empty()).then(|| start..start + (wanted.end - wanted.start))
            });
            let wanted: Vec<Range<u64>> = wanted.collect();
            self.to_read.extend(cut(&pack, &wanted, self.all));
            if let Some(first) = self.to_read.front_mut() {
                first.is_first = true;
            }
        }
        true
    }
}

/// What two ranges share; an empty range, at a place that means nothing, if they share nothing.
pub(crate) fn overlap(a: Range<u64>, b: &Range<u64>) -> Range<u64> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
