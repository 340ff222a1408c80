//! `whimbrel watch`, and what else shows a run to its end.

use indicatif::MultiProgress;
use whimbrel_proto::v1::{EndedEvent, Phase};
use whimbrel_store::shell;

use crate::{
    args::client::WatchArgs,
    client::{Client, Update, Watch},
    config::ClientConfig,
    exit::{Code, Failure},
    output::{self, screen::Screen},
};

/// Shows what happens to a run until it ends.
pub(super) async fn watch(
    args: WatchArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let flags = args.access.repeated();
    let client = Client::open(args.access, config).await?;
    let mut screen = output::open_screen(args.json, bars);
    to_the_end(client, args.run, &flags, screen.as_mut()).await
}

/// Shows a run on `screen` until it ends. `flags` name the coordinator in printed commands.
pub(super) async fn to_the_end(
    client: Client,
    run: String,
    flags: &str,
    screen: &mut dyn Screen,
) -> Result<Code, Failure> {
    let mut watch = Watch::new(client, run);
    loop {
        if let Some(ended) = show(watch.next().await?, screen) {
            let resume = format!("whimbrel submit --resume {}{flags}", watch.run());
            screen.end(&ended, &next_commands(watch.uri(), &ended, &resume, None));
            return outcome(watch.run(), ended);
        }
    }
}

/// Shows an update, unless it is the end of the run, which is returned.
pub(super) fn show(update: Update, screen: &mut dyn Screen) -> Option<EndedEvent> {
    match update {
        Update::Status(status) => screen.status(&status),
        Update::Event(event) => screen.event(&event),
        Update::Ended(ended) => return Some(ended),
    }
    None
}

/// The commands that may be wanted after the end of a run in the directory `uri`. `resume` is the one that resumes it;
/// `hint` is the spec's `try_next`.
pub(super) fn next_commands(uri: &str, ended: &EndedEvent, resume: &str, hint: Option<&str>) -> Vec<String> {
    let mut commands = Vec::new();
    if ended.phase() == Phase::Stopped {
        commands.push(resume.to_owned());
    }
    if !ended.checkpoint.is_empty() {
        commands.push(format!("whimbrel checkpoint list {}", shell::word(uri)));
        commands.push(format!("whimbrel checkpoint verify {}", shell::word(&ended.checkpoint)));
        commands.extend(hint.map(|hint| filled(hint, &ended.checkpoint)));
    }
    commands
}

/// The spec's `try_next` with the URI of a checkpoint filled in; quoted for a shell unless the hint has the quotes.
fn filled(hint: &str, checkpoint: &str) -> String {
    const SLOT: &str = "{checkpoint}";
    let is_quoted = ['"', '\''].iter().any(|quote| hint.contains(&format!("{quote}{SLOT}{quote}")));
    if is_quoted { hint.replace(SLOT, checkpoint) } else { hint.replace(SLOT, &shell::word(checkpoint)) }
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
#[error("run {run} failed after step {step}: {reason}")]
struct RunFailed {
    run: String,
    step: u64,
    reason: String,
}

/// How a command ends that showed a run to its end.
pub(super) fn outcome(run: &str, ended: EndedEvent) -> Result<Code, Failure> {
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
