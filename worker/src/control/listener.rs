//! The listener: the task that reads the control stream while the program computes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use whimbrel_collective::Interrupter;
use whimbrel_member::{End, Requests};
use whimbrel_proto::{
    border::WireError,
    v1::{self, worker_message::Message},
};

use crate::control::{outbox::Outbox, requests::Expected};

/// The coordinator sends something every second. After this long without anything it is lost.
const SILENCE: Duration = Duration::from_secs(15);
/// Between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How the coordinator was lost.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream ended in good order, without a command to leave.
    #[error("it closed the stream")]
    Closed,
    /// The stream broke.
    #[error("the stream broke")]
    Broken(#[source] Status),
    /// Nothing came, not even heartbeats.
    #[error("nothing came from it for {} s, not even a heartbeat", .0.as_secs())]
    Silent(Duration),
    /// It sent an invalid command.
    #[error("it sent an invalid command; are the coordinator and this program of one version?")]
    Invalid(#[source] WireError),
    /// The task that listens to it ended early.
    #[error("the task that listens to it ended early")]
    ListenerEnded,
}

/// What the listener has received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) requests: Requests,
    /// How the stream was lost, if it was.
    pub(crate) lost: Option<Arc<StreamError>>,
}

/// The generation and step that heartbeats report.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    generation: AtomicU64,
    step: AtomicU64,
}

/// The task that writes the [`Inbox`].
pub(crate) struct Listener {
    pub(crate) expected: Expected,
    pub(crate) inbox: Arc<watch::Sender<Inbox>>,
    pub(crate) interrupter: Interrupter,
    pub(crate) outbox: Outbox,
    pub(crate) progress: Arc<Progress>,
}

impl Listener {
    /// Listens until the stream ends, for any reason.
    pub(crate) async fn run(self, stream: impl Stream<Item = Result<v1::WorkerCommand, Status>>) {
        let error = Arc::new(self.listen(stream).await);
        self.inbox.send_modify(|inbox| {
            inbox.lost = Some(error);
            inbox.requests.end(End::Lost);
        });
        self.interrupter.interrupt(u64::MAX);
    }

    async fn listen(&self, stream: impl Stream<Item = Result<v1::WorkerCommand, Status>>) -> StreamError {
        tokio::pin!(stream);
        let mut heartbeats = interval(HEARTBEAT);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_message = Instant::now();
        loop {
            tokio::select! {
                _ = heartbeats.tick() => self.outbox.send(Message::Heartbeat(self.progress.heartbeat())),
                command = timeout_at(last_message + SILENCE, stream.next()) => {
                    last_message = Instant::now();
                    match command {
                        Err(_) => return StreamError::Silent(SILENCE),
                        Ok(None) => return StreamError::Closed,
                        Ok(Some(Err(status))) => return StreamError::Broken(status),
                        Ok(Some(Ok(command))) => {
                            if let Err(error) = self.take(command) {
                                return StreamError::Invalid(error);
                            }
                        }
                    }
                }
            }
        }
    }

    fn take(&self, command: v1::WorkerCommand) -> Result<(), WireError> {
        if let Some(request) = self.expected.request(command)? {
            self.inbox.send_modify(|inbox| inbox.requests.take(request));
            self.interrupter.interrupt(self.inbox.borrow().requests.called_off_through());
        }
        Ok(())
    }
}

impl Progress {
    pub(crate) fn set(&self, generation: u64, step: u64) {
        self.generation.store(generation, Ordering::Relaxed);
        self.step.store(step, Ordering::Relaxed);
    }

    fn heartbeat(&self) -> v1::WorkerHeartbeat {
        let (generation, step) = (self.generation.load(Ordering::Relaxed), self.step.load(Ordering::Relaxed));
        v1::WorkerHeartbeat { generation, step }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use whimbrel_collective::Endpoint;
    use whimbrel_plan::WorkerId;
    use whimbrel_proto::v1::worker_command::Command;

    use super::*;
    use crate::control::canceller::Canceller;

    fn listener() -> (Listener, watch::Receiver<Inbox>, mpsc::UnboundedReceiver<v1::WorkerMessage>) {
        let (inbox, seen) = watch::channel(Inbox::default());
        let inbox = Arc::new(inbox);
        let (outgoing, sent) = mpsc::unbounded_channel();
        let expected = Expected { run: "r".parse().unwrap(), worker: WorkerId(1), epoch: 1, shards: 1 };
        let interrupter = Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap().interrupter();
        let outbox = Outbox(outgoing.downgrade());
        // The only strong sender stays open for as long as the test runs.
        std::mem::forget(outgoing);
        (Listener { expected, inbox, interrupter, outbox, progress: Arc::default() }, seen, sent)
    }

    fn lost(inbox: &watch::Receiver<Inbox>) -> String {
        assert_eq!(inbox.borrow().requests.ended(), Some(&End::Lost));
        inbox.borrow().lost.as_ref().unwrap().to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_coordinator_is_lost_and_was_sent_heartbeats_until_then() {
        let (listener, inbox, mut sent) = listener();
        let began = Instant::now();
        listener.run(tokio_stream::pending()).await;
        assert_eq!(began.elapsed(), SILENCE);
        assert!(lost(&inbox).contains("nothing came from it for 15 s"));
        let heartbeats = std::iter::from_fn(|| sent.try_recv().ok()).count() as u64;
        assert!((14..=16).contains(&heartbeats), "{heartbeats} heartbeats");
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_of_the_coordinator_keep_the_stream() {
        let (listener, inbox, _sent) = listener();
        let heartbeat = v1::WorkerCommand { command: Some(Command::Heartbeat(v1::CoordinatorHeartbeat {})) };
        let heartbeats = tokio_stream::iter((0..9).map(move |_| Ok(heartbeat.clone())));
        let every_ten_seconds = heartbeats.throttle(Duration::from_secs(10));
        let began = Instant::now();
        listener.run(every_ten_seconds).await;
        assert!(began.elapsed() >= Duration::from_secs(80));
        assert_eq!(lost(&inbox), "it closed the stream");
    }

    #[tokio::test(start_paused = true)]
    async fn a_canceller_ends_the_worker_and_does_not_keep_the_inbox_open() {
        let (listener, inbox, _sent) = listener();
        let interrupter = listener.interrupter.clone();
        let canceller = Canceller { inbox: Arc::downgrade(&listener.inbox), interrupter };
        canceller.cancel("a signal");
        canceller.cancel("another one");
        let end = End::Leave { reason: "a signal".into() };
        assert_eq!(inbox.borrow().requests.ended(), Some(&end), "the first reason is kept");
        assert!(inbox.borrow().requests.calls_off(u64::MAX));
        drop(listener);
        assert!(inbox.has_changed().is_err(), "the listener was the only owner");
        canceller.cancel("too late");
        assert_eq!(inbox.borrow().requests.ended(), Some(&end));
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_command_ends_the_stream() {
        let (listener, inbox, _sent) = listener();
        listener.run(tokio_stream::iter([Ok(v1::WorkerCommand { command: None })])).await;
        assert!(lost(&inbox).contains("an invalid command"));
    }
}
