//! Saving this worker's slice of a checkpoint while the next steps run.
//!
//! Training stops only while the slice is copied to the staging buffer: hashing and upload run on the threads of the
//! control stream. There is one buffer, kept from save to save. It is allocated and touched while the first
//! steps run. During that time, and during an upload, the saver is busy, and the members postpone the next save. Only
//! the last save of a run or of a generation waits for it.

use std::{
    future::Future,
    hint::black_box,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    runtime::Handle,
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

/// A buffer up to this size is prepared before the step: touching it takes a few milliseconds, once.
const PREPARED_AT_ONCE: usize = 16 << 20;
/// The smallest page of the processors that this runs on.
const PAGE: usize = 4096;

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
    /// When the task began to prepare the buffer, if it does; otherwise it uploads.
    preparing: Option<Instant>,
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
        Self { run, layout, timeout, limits, upload, preparing: None, last: None, buffer }
    }

    /// Prepares the buffer for slices of `bytes` bytes, behind the program's steps, if it is too small. Memory that is
    /// written for the first time costs several times as much as the copy itself, and the first save must not wait for
    /// it.
    pub(crate) fn prepare(&mut self, handle: &Handle, bytes: usize) {
        self.collect_finished();
        if !self.upload.is_empty() || self.buffer.capacity() >= bytes {
            return;
        }
        // The old one first: there are never two.
        self.buffer = BytesMut::new();
        if bytes <= PREPARED_AT_ONCE {
            self.buffer = touched(bytes);
        } else {
            self.preparing = Some(Instant::now());
            self.upload.spawn_blocking_on(move || touched(bytes), handle);
        }
    }

    /// Copies a slice of `state` and starts its upload, whose end is reported to the coordinator. Nothing is saved if
    /// the generation is called off first. A slice that is being uploaded is not staged again.
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
                let why = if self.preparing.is_some() {
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

    /// Whether a save would have to wait: for an upload, or for the buffer. A buffer that is not there after the time
    /// that a save waits does not count: the next save fails then, and the failure is reported.
    pub(crate) fn is_busy(&mut self) -> bool {
        self.collect_finished();
        !self.upload.is_empty() && self.preparing.is_none_or(|since| since.elapsed() < self.timeout)
    }

    fn collect_finished(&mut self) {
        while let Some(done) = self.upload.try_join_next() {
            self.take_back(done);
        }
    }

    async fn finish_previous(&mut self) {
        while let Some(done) = self.upload.join_next().await {
            self.take_back(done);
        }
    }

    fn take_back(&mut self, done: Result<BytesMut, JoinError>) {
        self.preparing = None;
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

/// A buffer for `bytes` bytes whose pages are all mapped.
fn touched(bytes: usize) -> BytesMut {
    // Slices of other ranks are a few bytes longer or shorter.
    let mut buffer = BytesMut::zeroed(bytes.next_multiple_of(1 << 20));
    for page in buffer.chunks_mut(PAGE) {
        // The value is opaque to the compiler, which must not leave out writing a zero over a zero.
        page[0] = black_box(0);
    }
    buffer
}

fn failed(slice: &Slice, reason: String) -> Message {
    let (generation, step) = (slice.generation, slice.step);
    tracing::warn!(generation, step, reason, "this worker's slice of a checkpoint could not be saved");
    Message::SliceFailed(v1::SliceFailed { generation, step, reason })
}

#[cfg(test)]
mod tests {
    use whimbrel_state::TensorSpec;
    use whimbrel_store::Store;

    use super::*;

    fn saver(folder: &tempfile::TempDir, timeout: Duration) -> Saver {
        let run = Store::open(folder.path().to_str().unwrap()).unwrap().run(&"r".parse().unwrap());
        let layout = Layout::new(vec![TensorSpec::f32("w", [4])]).unwrap();
        Saver::new(run, layout, timeout, Limits::default())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_buffer_is_prepared_behind_the_steps_and_saves_are_put_off_until_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut saver = saver(&folder, Duration::from_secs(60));
        let bytes = (256 << 20) + 5;
        saver.prepare(&Handle::current(), bytes);
        assert!(saver.is_busy(), "256 MiB are not mapped within microseconds");
        // Of a step that begins meanwhile.
        saver.prepare(&Handle::current(), bytes);
        assert_eq!(saver.upload.len(), 1);
        saver.finish_previous().await;
        assert!(!saver.is_busy() && saver.buffer.capacity() >= bytes);
        let buffer = saver.buffer.as_ptr();
        saver.prepare(&Handle::current(), bytes);
        assert_eq!((saver.buffer.as_ptr(), saver.upload.len()), (buffer, 0), "it is kept");
    }

    #[tokio::test]
    async fn a_small_buffer_is_there_at_once_and_a_missing_one_puts_no_save_off_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut impatient = saver(&folder, Duration::ZERO);
        impatient.prepare(&Handle::current(), 5 << 20);
        assert!(!impatient.is_busy() && impatient.buffer.capacity() >= 5 << 20);
        impatient.prepare(&Handle::current(), PREPARED_AT_ONCE + 1);
        assert!(!impatient.is_busy());
    }
}
