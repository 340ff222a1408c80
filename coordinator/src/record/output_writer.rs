//! The output of a run's workers: stored in the run's directory, and streamed to clients that follow it.
//!
//! Each epoch has one sequence of objects. An object holds a few seconds' or kilobytes' worth of lines, in the order in
//! which the coordinator got them. Each line begins with its writer: `w3 …`, or `setup …`.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};
use tonic::Status;
use whimbrel_plan::WorkerId;
use whimbrel_proto::v1;
use whimbrel_store::{RunDir, StoreError};

/// Buffered lines are written once they have this many bytes…
const CHUNK: usize = 64 << 10;
/// …or when the driver flushes, this often.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// Lines that may wait for a client that reads slowly.
const FOLLOW_BACKLOG: usize = 16_384;
/// A reader waits this long for buffered lines to reach the store.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Buffers the lines of a run's workers; the driver holds it. A task of its own writes them to the store.
#[derive(Debug)]
pub(crate) struct OutputWriter {
    dir: RunDir,
    buffer: String,
    requests: mpsc::UnboundedSender<Request>,
    followers: broadcast::Sender<v1::LogLine>,
}

/// A request to the writing task.
#[derive(Debug)]
enum Request {
    Write(String),
    /// Answer when every earlier request is carried out.
    Flush(oneshot::Sender<()>),
}

impl OutputWriter {
    /// A writer, and its writing task, which ends once the writer is dropped and everything is written.
    pub(crate) fn new(dir: RunDir, epoch: u64) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, received) = mpsc::unbounded_channel();
        let (followers, _) = broadcast::channel(FOLLOW_BACKLOG);
        let writing = write_to_store(dir.clone(), epoch, received);
        (Self { dir, buffer: String::new(), requests, followers }, writing)
    }

    /// Takes lines of a worker; 0 stands for `setup`.
    pub(crate) fn print(&mut self, worker: u64, lines: Vec<String>) {
        for text in lines {
            self.buffer.push_str(&name(worker));
            self.buffer.push(' ');
            self.buffer.push_str(&text);
            self.buffer.push('\n');
            // There may be no follower.
            self.followers.send(v1::LogLine { worker, text }).ok();
        }
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
    }

    /// Hands the buffered lines to the writing task.
    pub(crate) fn flush(&mut self) {
        if !self.buffer.is_empty() {
            // The task outlives the writer.
            self.requests.send(Request::Write(std::mem::take(&mut self.buffer))).ok();
        }
    }

    /// A reader of everything printed until now and later.
    pub(crate) fn reader(&mut self) -> OutputReader {
        self.flush();
        let (done, flushed) = oneshot::channel();
        self.requests.send(Request::Flush(done)).ok();
        OutputReader { dir: self.dir.clone(), flushed, following: self.followers.subscribe() }
    }
}

async fn write_to_store(dir: RunDir, epoch: u64, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut sequence = 0;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Write(text) => {
                if let Err(error) = dir.put_output(epoch, sequence, text.into()).await {
                    tracing::error!(run = %dir.id(), %error, "the output of workers could not be stored; it is lost");
                }
                sequence += 1;
            }
            // The reader may have gone.
            Request::Flush(done) => drop(done.send(())),
        }
    }
}

/// Reads the output of a run's workers, for one client's `Logs` call.
#[derive(Debug)]
pub(crate) struct OutputReader {
    dir: RunDir,
    flushed: oneshot::Receiver<()>,
    following: broadcast::Receiver<v1::LogLine>,
}

impl OutputReader {
    /// A reader of the output of a run that this coordinator does not host.
    pub(crate) fn of_archived(dir: RunDir) -> Self {
        let (_, flushed) = oneshot::channel();
        Self { dir, flushed, following: broadcast::channel(1).1 }
    }

    /// All stored lines, then, with `follow`, the new ones until the run ends. Fails if the store cannot be read; the
    /// stream fails with RESOURCE_EXHAUSTED if the client reads too slowly.
    pub(crate) async fn lines(
        self,
        follow: bool,
    ) -> Result<impl stream::Stream<Item = Result<v1::LogLine, Status>> + Send, StoreError> {
        let Self { dir, flushed, following } = self;
        // If the store does not answer, the lines that it has are better than none.
        if timeout(FLUSH_TIMEOUT, flushed).await.is_err() {
            tracing::warn!(run = %dir.id(), "the newest output has not reached the store yet; it is left out");
        }
        let chunks = dir.output().await?;
        let stored = chunks
            .iter()
            .flat_map(|chunk| String::from_utf8_lossy(chunk).lines().filter_map(line).collect::<Vec<_>>());
        let stored = stream::iter(stored.map(Ok).collect::<Vec<_>>());
        let following = if follow { Some(following) } else { None };
        let live = stream::unfold(following, |following| async move {
            let mut following = following?;
            match following.recv().await {
                Ok(line) => Some((Ok(line), Some(following))),
                Err(broadcast::error::RecvError::Closed) => None,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let text = format!("{missed} lines came faster than they were read; ask again");
                    Some((Err(Status::resource_exhausted(text)), None))
                }
            }
        });
        Ok(stored.chain(live))
    }
}

fn name(worker: u64) -> String {
    if worker == 0 { "setup".into() } else { WorkerId(worker).to_string() }
}

/// Parses a stored line.
fn line(stored: &str) -> Option<v1::LogLine> {
    let (who, text) = stored.split_once(' ')?;
    let worker = if who == "setup" { 0 } else { who.strip_prefix('w')?.parse().ok()? };
    Some(v1::LogLine { worker, text: text.to_owned() })
}
