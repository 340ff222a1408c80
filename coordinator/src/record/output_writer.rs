//! What a run's workers print: kept in its directory, and handed to whoever follows.
//!
//! One sequence of objects an epoch, each some seconds' or kilobytes' worth of lines in the order in which they came,
//! each line led by who printed it: `w3 …`, or `setup …`.

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

/// Lines are written out once they fill this many bytes…
const CHUNK: usize = 64 << 10;
/// …or, by the driver's clock, this long after the last time.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Lines that may wait for a follower that reads slowly.
const FOLLOW_BACKLOG: usize = 16_384;
/// A reader waits this long for lines on their way to the store.
const SETTLE: Duration = Duration::from_secs(30);

/// Takes in lines; a task of its own writes them out.
#[derive(Debug)]
pub(crate) struct OutputWriter {
    dir: RunDir,
    buffer: String,
    orders: mpsc::UnboundedSender<Order>,
    followers: broadcast::Sender<v1::LogLine>,
}

/// What the writing task is to do.
#[derive(Debug)]
enum Order {
    Write(String),
    /// Say when everything before is written.
    Settle(oneshot::Sender<()>),
}

/// What a run's workers printed, and print.
#[derive(Debug)]
pub(crate) struct Printed {
    dir: RunDir,
    settled: oneshot::Receiver<()>,
    following: broadcast::Receiver<v1::LogLine>,
}

impl Printed {
    /// What was printed in a run that nobody works on any more.
    pub(crate) fn of_old(dir: RunDir) -> Self {
        let (_, settled) = oneshot::channel();
        Self { dir, settled, following: broadcast::channel(1).1 }
    }
}

impl OutputWriter {
    /// A output, and the work of its writing task, which ends once the output is dropped and all is written.
    pub(crate) fn new(dir: RunDir, epoch: u64) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (orders, received) = mpsc::unbounded_channel();
        let (followers, _) = broadcast::channel(FOLLOW_BACKLOG);
        let work = write_out(dir.clone(), epoch, received);
        (Self { dir, buffer: String::new(), orders, followers }, work)
    }

    /// Takes in lines of a worker; 0 stands for `setup`.
    pub(crate) fn print(&mut self, worker: u64, lines: Vec<String>) {
        for text in lines {
            self.buffer.push_str(&name(worker));
            self.buffer.push(' ');
            self.buffer.push_str(&text);
            self.buffer.push('\n');
            // Nobody may be following.
            self.followers.send(v1::LogLine { worker, text }).ok();
        }
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
    }

    /// Hands what has come to the writing task.
    pub(crate) fn flush(&mut self) {
        if !self.buffer.is_empty() {
            // The task outlives the output.
            self.orders.send(Order::Write(std::mem::take(&mut self.buffer))).ok();
        }
    }

    /// Everything printed until now, and what will be.
    pub(crate) fn printed(&mut self) -> Printed {
        self.flush();
        let (done, settled) = oneshot::channel();
        self.orders.send(Order::Settle(done)).ok();
        Printed { dir: self.dir.clone(), settled, following: self.followers.subscribe() }
    }
}

async fn write_out(dir: RunDir, epoch: u64, mut orders: mpsc::UnboundedReceiver<Order>) {
    let name = format!("epoch-{epoch}");
    let mut sequence = 0;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Write(text) => {
                if let Err(error) = dir.put_output(&name, sequence, text.into()).await {
                    tracing::error!(run = %dir.id(), %error, "what the workers printed could not be kept");
                }
                sequence += 1;
            }
            // The reader may have left.
            Order::Settle(done) => drop(done.send(())),
        }
    }
}

/// All lines kept, then, if `follow`, those that come until the run ends.
pub(crate) async fn read_back(
    printed: Printed,
    follow: bool,
) -> Result<impl stream::Stream<Item = Result<v1::LogLine, Status>> + Send, StoreError> {
    let Printed { dir, settled, following } = printed;
    // If the store does not answer, what is there already is better than nothing.
    if timeout(SETTLE, settled).await.is_err() {
        tracing::warn!(run = %dir.id(), "the newest lines have not reached the store yet");
    }
    let chunks = dir.output(None).await?;
    let kept = chunks
        .iter()
        .flat_map(|chunk| String::from_utf8_lossy(&chunk.text).lines().filter_map(line).collect::<Vec<_>>());
    let kept = stream::iter(kept.map(Ok).collect::<Vec<_>>());
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
    Ok(kept.chain(live))
}

fn name(worker: u64) -> String {
    if worker == 0 { "setup".into() } else { WorkerId(worker).to_string() }
}

/// A line as it is kept.
fn line(kept: &str) -> Option<v1::LogLine> {
    let (who, text) = kept.split_once(' ')?;
    let worker = if who == "setup" { 0 } else { who.strip_prefix('w')?.parse().ok()? };
    Some(v1::LogLine { worker, text: text.to_owned() })
}
