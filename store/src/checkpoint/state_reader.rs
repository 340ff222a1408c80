//! Reading a checkpoint's state in order, without keeping it.
//!
//! Exports and diffs read this way (through [`state_ranges`](super::state_ranges)), and so does the coordinator when it
//! checks whether a checkpoint is damaged in all sources.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use whimbrel_state::Manifest;

use crate::{
    checkpoint::{
        read_ahead::{Completed, ReadAhead},
        restore::{RestoreError, RestoreReport},
        sources::Sources,
    },
    object::Limits,
};

/// Verified bytes of a checkpoint's state, in order, read ahead of the caller.
///
/// Memory holds up to [`Limits::concurrency`] times 8 MiB, or one pack if that is more: a pack that mixes element types
/// is held until it can be put in order.
#[derive(Debug)]
pub struct StateReader {
    sources: Sources,
    limits: Limits,
    step: u64,
    reads: ReadAhead,
    ready: VecDeque<Bytes>,
    /// The share of the memory budget that `ready` takes.
    memory: Option<OwnedSemaphorePermit>,
    report: RestoreReport,
}

impl StateReader {
    /// Begins to read the bytes `range` of the state. A range that reaches past the state's end is cut there.
    pub fn new(
        sources: &Sources,
        manifest: &Manifest,
        range: Range<u64>,
        limits: &Limits,
    ) -> Result<Self, RestoreError> {
        let step = manifest.step;
        manifest.check().map_err(|source| RestoreError::Manifest { step, source })?;
        Ok(Self {
            sources: sources.clone(),
            limits: *limits,
            step,
            reads: ReadAhead::of_range(sources, manifest, range, limits),
            ready: VecDeque::new(),
            memory: None,
            report: RestoreReport::default(),
        })
    }

    /// The next bytes; `None` at the end. Packs that are bad in the primary are healed before it returns `None`.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RestoreError> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            self.memory = None;
            let Some(Completed { read, bytes, memory }) = self.reads.next().await? else {
                let healed = self.sources.heal(self.reads.faults(), &self.limits).await;
                self.report.healed.extend(healed);
                return Ok(None);
            };
            self.report.bytes += read.bytes();
            self.report.packs += usize::from(read.is_first_of_pack());
            let step = self.step;
            self.ready.extend(bytes.map_err(|error| RestoreError::new(step, error))?);
            self.memory = memory;
        }
    }

    /// What was read so far.
    pub fn report(&self) -> &RestoreReport {
        &self.report
    }
}

/// Passes the bytes `range` of a checkpoint's state to `sink`, in order, each verified first.
pub async fn read_state(
    sources: &Sources,
    manifest: &Manifest,
    range: Range<u64>,
    limits: &Limits,
    mut sink: impl FnMut(&[u8]),
) -> Result<RestoreReport, RestoreError> {
    let mut reader = StateReader::new(sources, manifest, range, limits)?;
    while let Some(bytes) = reader.next().await? {
        sink(&bytes);
    }
    Ok(reader.report)
}
