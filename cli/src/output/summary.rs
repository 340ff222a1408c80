//! What people read first and last of a run.

use std::{fmt::Write as _, time::Duration};

use whimbrel_proto::v1::{EndedEvent, Phase, RunStatus};

use super::{print::facts, progress::Progress, words};

/// Which run this is, two lines.
pub(crate) fn start(status: &RunStatus) -> [String; 2] {
    let from = if status.step > 0 { format!(", from step {}", status.step) } else { String::new() };
    [format!("run {}, {} steps{from}", status.run, status.steps), format!("  {}", status.uri)]
}

/// How the run ended, its results, and commands to give next. Of a failed run only the results: the command prints its
/// error.
pub(crate) fn end(progress: &Progress, ended: &EndedEvent, next: &[String]) -> String {
    let Progress { run, steps, .. } = progress;
    let time = match Duration::try_from_secs_f64(ended.seconds) {
        Ok(time) if !time.is_zero() => format!(", {}", words::time(time)),
        // Unknown where the run had ended before this program watched.
        _ => String::new(),
    };
    let mut text = match ended.phase() {
        Phase::Finished => {
            // Its program has ended it early.
            let reason = if ended.reason.is_empty() { String::new() } else { format!("; {}", ended.reason) };
            format!("finished {run}: {} steps{time}{reason}\n", ended.step)
        }
        Phase::Failed => String::new(),
        phase => {
            let reason = if ended.reason.is_empty() { String::new() } else { format!(": {}", ended.reason) };
            format!("{} {run} after step {} of {steps}{time}{reason}\n", words::phase(phase), ended.step)
        }
    };
    let finished = ended.phase() == Phase::Finished;
    let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut named = vec![
        ("loss", ended.loss.filter(|_| finished).map(words::loss)),
        ("validation", ended.val_loss.filter(|_| finished).map(words::loss)),
        ("checkpoint", known(&ended.checkpoint)),
        ("state", known(&ended.state).map(|state| format!("BLAKE3 {state}"))),
    ];
    let replicas = ended.replicas.iter();
    named.extend(
        replicas.map(|replica| ("replica", Some(format!("{}, {}", replica.uri, words::replica(replica))))),
    );
    text.push_str(&facts(&named));
    if !next.is_empty() {
        text.push_str("next:\n");
        for line in next {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::recorded;

    #[test]
    fn a_finished_run_shows_its_results_and_what_to_try_next() {
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
