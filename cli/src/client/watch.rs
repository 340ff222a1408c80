//! A stream of what happens to one run, opened again where the coordinator cuts it off.

use tonic::{Code as GrpcCode, Status, Streaming};
use whimbrel_proto::v1::{EndedEvent, Phase, RunEvent, RunStatus, run_event::Event};
use whimbrel_store::{Ended, Outcome, uri::at_step};

use super::{Client, ClientError};
use crate::output::words;

/// A run that is being watched.
pub(crate) struct Watch {
    client: Client,
    run: String,
    stream: Option<Streaming<RunEvent>>,
    uri: String,
    /// Steps applied in the newest checkpoint.
    checkpoint: Option<u64>,
}

/// An update about a run.
pub(crate) enum Update {
    /// Its status: at first, and after a gap.
    Status(RunStatus),
    /// Something happened.
    Event(Event),
    /// It has ended at this coordinator.
    Ended(EndedEvent),
}

impl Watch {
    /// Watches `run` through `client`. Nothing is called yet.
    pub(crate) fn new(client: Client, run: String) -> Self {
        Self { client, run, stream: None, uri: String::new(), checkpoint: None }
    }

    /// The run's id.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The URI of the run's directory, once a status has come.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for the next update. Dropping the future loses nothing; at worst a status comes twice.
    ///
    /// The coordinator cuts off a client that reads too slowly. Then the stream is opened again, and starts with a
    /// status.
    pub(crate) async fn next(&mut self) -> Result<Update, ClientError> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => self.stream.insert(self.client.watch(&self.run).await?),
            };
            match stream.message().await {
                Ok(Some(RunEvent { event: Some(event) })) => return Ok(self.received(event)),
                // An event of a kind that this version does not know.
                Ok(Some(RunEvent { event: None })) => {}
                Ok(None) => {
                    self.stream = None;
                    return self.end_of_stream().await;
                }
                Err(status) if status.code() == GrpcCode::ResourceExhausted => self.stream = None,
                Err(status) => {
                    self.stream = None;
                    return Err(self.client.broken(format!("go on watching run {}", self.run), status));
                }
            }
        }
    }

    /// The end of a run whose coordinator was stopped at once: it sent no end.
    pub(crate) fn abandoned(&self) -> EndedEvent {
        EndedEvent {
            phase: Phase::Stopped.into(),
            step: self.checkpoint.unwrap_or(0),
            reason: "stopped at once".into(),
            checkpoint: self.checkpoint_uri(),
            ..EndedEvent::default()
        }
    }

    /// The end of such a run if its log says that it has ended.
    pub(crate) fn left_behind(&self, ended: &Ended) -> EndedEvent {
        let phase = match ended.outcome {
            Outcome::Finished => Phase::Finished,
            Outcome::Failed => Phase::Failed,
            Outcome::Cancelled => Phase::Cancelled,
        };
        EndedEvent {
            phase: phase.into(),
            step: ended.step,
            loss: ended.loss,
            val_loss: ended.val_loss,
            state: ended.state.map(|state| state.to_string()).unwrap_or_default(),
            reason: ended.reason.clone().unwrap_or_else(|| "its replicas may lack some of it".into()),
            checkpoint: self.checkpoint_uri(),
            ..EndedEvent::default()
        }
    }

    fn received(&mut self, event: Event) -> Update {
        match event {
            Event::Status(status) => {
                self.uri.clone_from(&status.uri);
                self.checkpoint = status.checkpoint;
                Update::Status(status)
            }
            Event::Ended(ended) => Update::Ended(ended),
            event => {
                if let Event::Checkpoint(checkpoint) = &event {
                    self.checkpoint = Some(checkpoint.step);
                }
                Update::Event(event)
            }
        }
    }

    /// The stream ended without the end of the run: the run had ended before, or the coordinator stops.
    async fn end_of_stream(&mut self) -> Result<Update, ClientError> {
        let status = self.client.get(&self.run).await?;
        let phase = status.phase();
        if !matches!(phase, Phase::Stopped | Phase::Finished | Phase::Failed | Phase::Cancelled) {
            let words = format!("the coordinator ended the stream while the run was {}", words::phase(phase));
            let status = Status::unavailable(words);
            return Err(self.client.broken(format!("go on watching run {}", self.run), status));
        }
        self.checkpoint = status.checkpoint;
        Ok(Update::Ended(EndedEvent {
            phase: phase.into(),
            step: status.step,
            loss: status.loss,
            val_loss: status.val_loss,
            reason: status.detail,
            checkpoint: self.checkpoint_uri(),
            ..EndedEvent::default()
        }))
    }

    fn checkpoint_uri(&self) -> String {
        self.checkpoint.map_or(String::new(), |step| at_step(&self.uri, step))
    }
}
