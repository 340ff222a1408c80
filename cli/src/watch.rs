//! Watching a run to its end.

use tonic::{Code as GrpcCode, Streaming};
use whimbrel_proto::v1::{EndedEvent, Phase, RunEvent, RunStatus, run_event::Event};
use whimbrel_store::{Ended, Outcome, shell, uri::at_step};

use crate::{
    args::client::WatchArgs,
    client::{Client, ClientError},
    config::ClientConfig,
    exit::{Code, Failure},
    screen::{self, Screen, words},
};

/// `whimbrel watch`.
pub(crate) async fn watch(
    args: WatchArgs,
    config: &ClientConfig,
    bars: &indicatif::MultiProgress,
) -> Result<Code, Failure> {
    let flags = args.access.repeated();
    let client = Client::open(args.access, config).await?;
    let mut screen = screen::open(args.json, bars);
    to_the_end(client, args.run, &flags, screen.as_mut()).await
}

/// Shows a run on `screen` until it ends. `flags` say again how the coordinator is reached.
pub(crate) async fn to_the_end(
    client: Client,
    run: String,
    flags: &str,
    screen: &mut dyn Screen,
) -> Result<Code, Failure> {
    let mut watch = Watch::new(client, run);
    loop {
        if let Some(ended) = watch.next().await?.show(screen) {
            let again = format!("whimbrel submit --resume {}{flags}", watch.run);
            let next = watch.next_commands(&ended, &again, None);
            screen.end(&ended, &next);
            return outcome(&watch.run, ended);
        }
    }
}

/// A run being watched.
pub(crate) struct Watch {
    client: Client,
    run: String,
    stream: Option<Streaming<RunEvent>>,
    uri: String,
    /// Steps applied in the newest checkpoint.
    checkpoint: Option<u64>,
}

/// What was seen of a run.
pub(crate) enum Sight {
    /// How it stands: at first, and after a gap.
    Status(RunStatus),
    /// Something happened.
    Event(Event),
    /// It has ended here.
    Ended(EndedEvent),
}

impl Sight {
    /// Shows it, unless it is the end, which is given back.
    pub(crate) fn show(self, screen: &mut dyn Screen) -> Option<EndedEvent> {
        match self {
            Self::Status(status) => screen.status(&status),
            Self::Event(event) => screen.event(&event),
            Self::Ended(ended) => return Some(ended),
        }
        None
    }
}

impl Watch {
    pub(crate) fn new(client: Client, run: String) -> Self {
        Self { client, run, stream: None, uri: String::new(), checkpoint: None }
    }

    /// Waits for the next sight. Dropping the future loses nothing but, at worst, one status that comes again.
    ///
    /// Whoever reads too slowly is cut off by the coordinator and simply watches again.
    pub(crate) async fn next(&mut self) -> Result<Sight, ClientError> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => self.stream.insert(self.client.watch(&self.run).await?),
            };
            match stream.message().await {
                Ok(Some(RunEvent { event: Some(event) })) => return Ok(self.seen(event)),
                // An event of a kind that this program does not know yet.
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

    /// The run as a coordinator leaves it that ends at once, without a word.
    pub(crate) fn abandoned(&self) -> EndedEvent {
        EndedEvent {
            phase: Phase::Stopped.into(),
            step: self.checkpoint.unwrap_or(0),
            reason: "stopped at once".into(),
            checkpoint: self.checkpoint_uri(),
            ..EndedEvent::default()
        }
    }

    /// The run as a coordinator leaves it that ends at once when the run has ended, by its log.
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

    /// What may be wanted after the run's end. `resume` takes it up again; `hint` is the spec's `try_next`.
    pub(crate) fn next_commands(&self, ended: &EndedEvent, resume: &str, hint: Option<&str>) -> Vec<String> {
        let mut commands = Vec::new();
        if ended.phase() == Phase::Stopped {
            commands.push(resume.to_owned());
        }
        if !ended.checkpoint.is_empty() {
            let checkpoint = shell::word(&ended.checkpoint);
            commands.push(format!("whimbrel checkpoint list {}", shell::word(&self.uri)));
            commands.push(format!("whimbrel checkpoint verify {checkpoint}"));
            commands.extend(hint.map(|hint| filled(hint, &ended.checkpoint)));
        }
        commands
    }

    fn seen(&mut self, event: Event) -> Sight {
        match event {
            Event::Status(status) => {
                self.uri.clone_from(&status.uri);
                self.checkpoint = status.checkpoint;
                Sight::Status(status)
            }
            Event::Ended(ended) => Sight::Ended(ended),
            event => {
                if let Event::Checkpoint(checkpoint) = &event {
                    self.checkpoint = Some(checkpoint.step);
                }
                Sight::Event(event)
            }
        }
    }

    /// A stream without an end of the run in it: of a run that had ended before, or of a coordinator that goes away.
    async fn end_of_stream(&mut self) -> Result<Sight, ClientError> {
        let status = self.client.get(&self.run).await?;
        let phase = status.phase();
        if !matches!(phase, Phase::Stopped | Phase::Finished | Phase::Failed | Phase::Cancelled) {
            let words = format!("the coordinator ended the stream while the run was {}", words::phase(phase));
            let status = tonic::Status::unavailable(words);
            return Err(self.client.broken(format!("go on watching run {}", self.run), status));
        }
        self.checkpoint = status.checkpoint;
        Ok(Sight::Ended(EndedEvent {
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

/// The spec's `try_next` with a checkpoint's URI in its place, quoted for a shell unless that stands there already.
fn filled(hint: &str, checkpoint: &str) -> String {
    const PLACE: &str = "{checkpoint}";
    let is_quoted = ['"', '\''].iter().any(|quote| hint.contains(&format!("{quote}{PLACE}{quote}")));
    if is_quoted { hint.replace(PLACE, checkpoint) } else { hint.replace(PLACE, &shell::word(checkpoint)) }
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
#[error("run {run} failed after step {step}: {reason}")]
struct RunFailed {
    run: String,
    step: u64,
    reason: String,
}

/// What the program that showed a run to its end ends with.
pub(crate) fn outcome(run: &str, ended: EndedEvent) -> Result<Code, Failure> {
    match ended.phase() {
        Phase::Finished => Ok(Code::Done),
        Phase::Stopped => Ok(Code::Stopped),
        Phase::Cancelled => Ok(Code::Failed),
        _ => {
            let EndedEvent { step, reason, tail, .. } = ended;
            Err(Failure::unexpected(RunFailed { run: run.to_owned(), step, reason }).tail(tail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_try_next_can_be_pasted() {
        let options = "s3://lab/r-1@7?endpoint=http://a&region=b";
        for (hint, checkpoint, expected) in [
            ("char-lm sample {checkpoint}", "runs/r-1@7", "char-lm sample runs/r-1@7".to_owned()),
            ("sample {checkpoint} -n 3", options, format!("sample '{options}' -n 3")),
            ("sample '{checkpoint}'", options, format!("sample '{options}'")),
            ("sample \"{checkpoint}\"", options, format!("sample \"{options}\"")),
            ("nothing", options, "nothing".to_owned()),
        ] {
            assert_eq!(filled(hint, checkpoint), expected);
        }
    }
}
