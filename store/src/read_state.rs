//! Reading a checkpoint's state in order, without keeping it.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use tokio::task::JoinSet;
use whimbrel_state::{Manifest, Pack};

use crate::{
    folder::StoreError,
    restore::{RestoreError, RestoreReport},
    save::Limits,
    sources::Sources,
};

/// A pack, its bytes, and whether it was put back into the primary.
type Read = Result<(Pack, Bytes, bool), RestoreError>;

/// Verified bytes of a checkpoint's state, in order, read ahead of whoever takes them.
#[derive(Debug)]
pub struct StateReader {
    sources: Sources,
    step: u64,
    range: Range<u64>,
    to_read: VecDeque<Pack>,
    concurrency: usize,
    /// Packs being read, the next one first. Each is a task of its own, so that it gets on, and lets go of what it
    /// holds, however slowly its bytes are taken.
    reading: VecDeque<JoinSet<Read>>,
    ready: VecDeque<Bytes>,
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
        let holds =
            |pack: &&Pack| pack.pieces.iter().any(|piece| !overlap(piece.state_range(), &range).is_empty());
        Ok(Self {
            sources: sources.clone(),
            step,
            to_read: manifest.packs.iter().filter(holds).cloned().collect(),
            range,
            concurrency: limits.concurrency.max(1),
            reading: VecDeque::new(),
            ready: VecDeque::new(),
            report: RestoreReport::default(),
        })
    }

    /// The bytes that come next; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RestoreError> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            while self.reading.len() < self.concurrency
                && let Some(pack) = self.to_read.pop_front()
            {
                self.reading.push_back(self.read(pack));
            }
            let Some(mut reading) = self.reading.pop_front() else { return Ok(None) };
            let Some(read) = reading.join_next().await else { continue };
            let object = || self.sources.primary().uri().to_owned();
            let (pack, content, healed) =
                read.map_err(|source| StoreError::CutOff { object: object(), source })??;
            self.report.packs += 1;
            self.report.bytes += pack.length;
            self.report.healed.extend(healed.then_some(pack.hash));
            for piece in &pack.pieces {
                let wanted = overlap(piece.state_range(), &self.range);
                let start = (piece.offset + (wanted.start - piece.start)) as usize;
                if !wanted.is_empty() {
                    self.ready.push_back(content.slice(start..start + (wanted.end - wanted.start) as usize));
                }
            }
        }
    }

    /// What was read until now.
    pub fn report(&self) -> &RestoreReport {
        &self.report
    }

    fn read(&self, pack: Pack) -> JoinSet<Read> {
        let (sources, step) = (self.sources.clone(), self.step);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (bytes, healed) =
                sources.pack(&pack).await?.map_err(|source| RestoreError::Damaged { step, source })?;
            Ok((pack, bytes, healed))
        });
        task
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

/// What two ranges share; an empty range, at a place that means nothing, if they share nothing.
fn overlap(a: Range<u64>, b: &Range<u64>) -> Range<u64> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
