//! Reading a checkpoint's state in order, without keeping it.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use whimbrel_state::Manifest;

use crate::checkpoint::{
    read_ahead::{Read, Units},
    restore::{RestoreError, RestoreReport},
    save::Limits,
    sources::Sources,
};

/// Verified bytes of a checkpoint's state, in order, read ahead of whoever takes them.
///
/// In memory are up to [`Limits::concurrency`] times 8 MiB, or a pack where that is more: one that mixes element types
/// is held until it can be put in order.
#[derive(Debug)]
pub struct StateReader {
    sources: Sources,
    limits: Limits,
    step: u64,
    units: Units,
    ready: VecDeque<Bytes>,
    /// The memory that the bytes ready take.
    memory: Option<OwnedSemaphorePermit>,
    report: RestoreReport,
}

impl StateReader {
    /// Begins to read the bytes `range` of the state. What lies past the state's end is not there to be read.
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
            units: Units::new(sources, manifest, range, false, limits),
            ready: VecDeque::new(),
            memory: None,
            report: RestoreReport::default(),
        })
    }

    /// The bytes that come next; `None` at the end, when what the primary lacks has been put back.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RestoreError> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            self.memory = None;
            let Some(Read { unit, bytes, memory }) = self.units.next().await? else {
                let healed = self.sources.heal(self.units.findings(), &self.limits).await;
                self.report.healed.extend(healed);
                return Ok(None);
            };
            self.report.bytes += unit.bytes();
            self.report.packs += usize::from(unit.is_first());
            let step = self.step;
            self.ready.extend(bytes.map_err(|unread| RestoreError::of(step, unread))?);
            self.memory = memory;
        }
    }

    /// What was read until now.
    pub fn report(&self) -> &RestoreReport {
        &self.report
    }
}

/// Hands the bytes `range` of a checkpoint's state to `sink`, in order, each verified before.
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
