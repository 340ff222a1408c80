//! The first and the last words on a run, for people.

use std::{fmt::Write as _, time::Duration};

use whimbrel_proto::v1::{EndedEvent, Phase, RunStatus};

use super::{progress::Progress, words};

/// What run this is.
pub(crate) fn start(status: &RunStatus) -> [String; 2] {
    let from = if status.step > 0 { format!(", from step {}", status.step) } else { String::new() };
    [format!("run {}, {} steps{from}", status.run, status.steps), format!("  {}", status.uri)]
}

/// How it ended, what is left of it, and what to try next. A run that failed is an error, which is not said here.
pub(crate) fn end(progress: &Progress, ended: &EndedEvent, next: &[String]) -> String {
    let Progress { run, steps, .. } = progress;
    let time = match Duration::try_from_secs_f64(ended.seconds) {
        Ok(time) if !time.is_zero() => format!(", {}", words::time(time)),
        // Of a run that ended before anybody watched, it is not known.
        _ => String::new(),
    };
    let mut text = match ended.phase() {
        Phase::Finished => format!("finished {run}: {} steps{time}\n", ended.step),
        Phase::Failed => String::new(),
        phase => {
            let reason = if ended.reason.is_empty() { String::new() } else { format!(": {}", ended.reason) };
            format!("{} {run} after step {} of {steps}{time}{reason}\n", words::phase(phase), ended.step)
        }
    };
    let finished = ended.phase() == Phase::Finished;
    let facts = [
        ("loss", ended.loss.filter(|_| finished).map(words::loss)),
        ("validation", ended.val_loss.filter(|_| finished).map(words::loss)),
        ("checkpoint", Some(ended.checkpoint.clone()).filter(|uri| !uri.is_empty())),
        (
            "state",
            Some(ended.state.clone())
                .filter(|state| !state.is_empty())
                .map(|state| format!("BLAKE3 {state}")),
        ),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<10}  {value}");
        }
    }
    for replica in &ended.replicas {
        let _ = writeln!(text, "  {:<10}  {}, {}", "replica", replica.uri, words::standing(replica));
    }
    if !next.is_empty() {
        text.push_str("next:\n");
        for line in next {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::recorded;

    #[test]
    fn a_finished_run_says_what_it_came_to_and_what_to_try_next() {
        let mut progress = Progress::default();
        progress.status(&recorded::status());
        let text = end(&progress, &recorded::finished(), &["whimbrel checkpoint list X".into()]);
        let state = "ab".repeat(32);
        let expected = format!(
            "finished r-k3x9qa: 40 steps, 12s\n  loss        0.1000\n  validation  inf\n  \
             checkpoint  file:///runs/r-k3x9qa@40\n  state       BLAKE3 {state}\nnext:\n  whimbrel checkpoint list X\n"
        );
        assert_eq!(text, expected);
    }
}
