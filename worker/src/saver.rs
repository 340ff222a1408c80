//! Saving this worker's slice of a checkpoint behind the steps that follow.
//!
//! Training stops only while the slice is copied to the staging buffer: hashing and upload run on the threads of the
//! control stream. There is one buffer, kept from save to save. While it is being uploaded the members put the next save
//! off; only the last save of a run or of a generation waits for it.

use std::{
    future::Future,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use whimbrel_proto::{
    v1::{self, worker_message::Message},
    with_causes,
};
use whimbrel_state::{Layout, StateBytes};
use whimbrel_store::{Limits, RunDir, save_slice};

use crate::control::{
    outbox::Outbox,
    stream::{CLOSE, ControlStream},
};

/// Saves slices of checkpoints, one at a time.
#[derive(Debug)]
pub(crate) struct Saver {
    run: RunDir,
    layout: Arc<Layout>,
    /// How long a save waits for the one before.
    timeout: Duration,
    limits: Limits,
    /// The task that has the buffer, and returns it: an upload, or the preparation of the buffer.
    upload: JoinSet<BytesMut>,
    /// The task prepares the buffer, and no upload is in progress.
    preparing: bool,
    /// The last slice that was staged.
    last: Option<Staged>,
    buffer: BytesMut,
}

/// A part of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// The generation that stages it.
    pub(crate) generation: u64,
    /// Steps applied to the state.
    pub(crate) step: u64,
    /// Bytes of the state.
    pub(crate) range: Range<usize>,
}

/// A slice that was staged.
#[derive(Debug)]
struct Staged {
    generation: u64,
    step: u64,
    /// The end of its upload is reported, or about to be. A later request for it asks for another upload.
    reported: Arc<AtomicBool>,
}

impl Saver {
    pub(crate) fn new(run: RunDir, layout: Layout, timeout: Duration, limits: Limits) -> Self {
        let (layout, upload, buffer) = (Arc::new(layout), JoinSet::new(), BytesMut::new());
        Self { run, layout, timeout, limits, upload, preparing: false, last: None, buffer }
    }

    /// Makes room for slices of `bytes` bytes behind the program's back, so that the first save takes no longer than the
    /// next: memory that is written for the first time costs more than the copy itself.
    pub(crate) fn prepare(&mut self, control: &ControlStream, bytes: usize) {
        let has_buffer = !self.is_busy() && !self.preparing;
        if has_buffer && self.buffer.capacity() < bytes {
            let prepare = move || {
                let mut buffer = BytesMut::new();
                // Slices of other ranks are a few bytes longer or shorter.
                buffer.resize(bytes.next_multiple_of(1 << 20), 0);
                buffer
            };
            self.buffer = BytesMut::new();
            self.upload.spawn_blocking_on(prepare, control.handle());
            self.preparing = true;
        }
    }

    /// Copies a slice of `state` and starts its upload, whose end is reported to the coordinator. Nothing is saved if the
    /// generation is called off first. A slice that is being uploaded is not staged again.
    pub(crate) fn stage(&mut self, control: &ControlStream, slice: Slice, state: &StateBytes<'_>) {
        let began = Instant::now();
        let is_this = |last: &Staged| (last.generation, last.step) == (slice.generation, slice.step);
        let is_in_progress = |last: &Staged| !last.reported.load(Ordering::Acquire);
        if self.is_busy() && self.last.as_ref().is_some_and(|last| is_this(last) && is_in_progress(last)) {
            return;
        }
        let limit = self.timeout;
        let ready = async { timeout(limit, self.finish_previous()).await };
        match control.unless_called_off(slice.generation, ready) {
            Some(Ok(())) => {}
            Some(Err(_)) => {
                let why = if self.preparing {
                    format!("there was no memory for it within {limit:?}: this machine is short of it")
                } else {
                    format!("the save before it was not done within {limit:?}: the store is slow")
                };
                control.outbox().send(failed(&slice, why));
                return;
            }
            None => {
                control
                    .outbox()
                    .send(failed(&slice, "its generation was called off before it was staged".into()));
                return;
            }
        }
        self.buffer.clear();
        self.buffer.reserve(slice.range.len());
        for part in state.read(slice.range.clone()) {
            self.buffer.extend_from_slice(part);
        }
        let staged = std::mem::take(&mut self.buffer).freeze();
        let reported = Arc::<AtomicBool>::default();
        self.last =
            Some(Staged { generation: slice.generation, step: slice.step, reported: Arc::clone(&reported) });
        let upload = self.upload(slice, staged, began, control.outbox().clone(), reported);
        self.upload.spawn_on(upload, control.handle());
    }

    /// Waits for the upload in progress, if there is one, for at most 5 s.
    pub(crate) fn finish(&mut self, control: &ControlStream) {
        if control.handle().block_on(async { timeout(CLOSE, self.finish_previous()).await }).is_err() {
            tracing::warn!("the upload of a slice was not done within {CLOSE:?}, and is abandoned");
        }
    }

    /// Whether a slice is still being uploaded: staging another would have to wait.
    pub(crate) fn is_busy(&mut self) -> bool {
        while let Some(done) = self.upload.try_join_next() {
            self.take_back(done);
        }
        !self.upload.is_empty() && !self.preparing
    }

    async fn finish_previous(&mut self) {
        while let Some(done) = self.upload.join_next().await {
            self.take_back(done);
        }
    }

    fn take_back(&mut self, done: Result<BytesMut, JoinError>) {
        self.preparing = false;
        self.buffer = done.unwrap_or_else(|error| {
            tracing::error!(%error, "an upload ended early");
            BytesMut::new()
        });
    }

    fn upload(
        &self,
        slice: Slice,
        staged: Bytes,
        began: Instant,
        outbox: Outbox,
        reported: Arc<AtomicBool>,
    ) -> impl Future<Output = BytesMut> + use<> {
        let (run, layout, blocked) = (self.run.clone(), Arc::clone(&self.layout), began.elapsed());
        let limits = self.limits;
        async move {
            let saved = save_slice(&run, &layout, slice.range.clone(), staged.clone(), &limits).await;
            let message = match saved {
                Ok(packs) => Message::SliceSaved(v1::SliceSaved {
                    generation: slice.generation,
                    step: slice.step,
                    packs: packs.iter().map(v1::Pack::from).collect(),
                    blocked_seconds: blocked.as_secs_f64(),
                    seconds: began.elapsed().as_secs_f64(),
                }),
                Err(error) => failed(&slice, with_causes(&error)),
            };
            reported.store(true, Ordering::Release);
            outbox.send(message);
            staged.try_into_mut().unwrap_or_default()
        }
    }
}

fn failed(slice: &Slice, reason: String) -> Message {
    let (generation, step) = (slice.generation, slice.step);
    tracing::warn!(generation, step, reason, "this worker's slice of a checkpoint could not be saved");
    Message::SliceFailed(v1::SliceFailed { generation, step, reason })
}
