//! A run as lines of text, where no bar can be drawn. Some steps have a line; every other event has one.

use std::io::{Stdout, Write};

use whimbrel_proto::v1::{EndedEvent, RunStatus, run_event::Event};

use super::{print::Printer, progress::Progress, screen::Screen, summary, words};

/// A step has a line after this many seconds of training without one …
const SECONDS: f64 = 5.0;
/// … or at each such part of the run.
const PERCENT: u64 = 10;

/// Writes events as lines.
pub(crate) struct Plain<W> {
    out: Printer<W>,
    progress: Progress,
    /// Percent of the steps at the last line of a step.
    shown: u64,
    /// Seconds of training since then.
    silent: f64,
}

impl Plain<Stdout> {
    pub(crate) fn stdout() -> Self {
        Self::new(Printer::stdout())
    }
}

impl<W: Write> Plain<W> {
    fn new(out: Printer<W>) -> Self {
        Self { out, progress: Progress::default(), shown: 0, silent: 0.0 }
    }

    fn step(&mut self, seconds: f64) {
        self.silent += seconds;
        let percent = self.progress.percent();
        let due = self.silent >= SECONDS || percent / PERCENT > self.shown / PERCENT;
        if due || self.progress.step == 1 {
            (self.silent, self.shown) = (0.0, percent);
            let Progress { step, steps, .. } = self.progress;
            let left = match self.progress.left() {
                Some(left) if step < steps => format!(", {} left", words::time(left)),
                _ => String::new(),
            };
            self.out.line(format!(
                "step {step} of {steps} ({percent}%): {}{left}",
                words::figures(&self.progress)
            ));
        }
    }
}

impl<W: Write + Send> Screen for Plain<W> {
    fn status(&mut self, status: &RunStatus) {
        let first = self.progress.run.is_empty();
        self.progress.status(status);
        self.shown = self.progress.percent();
        if first {
            for line in summary::start(status) {
                self.out.line(line);
            }
            // Workers that started before this program watched.
            for worker in status.workers.iter().filter(|worker| worker.pid != 0) {
                self.out.line(words::started(worker.worker, worker.rank, &worker.node, worker.pid));
            }
        }
    }

    fn event(&mut self, event: &Event) {
        self.progress.event(event);
        if let Event::Step(event) = event {
            self.step(event.seconds);
        } else if let Some((line, tail)) = words::event(event, &self.progress) {
            self.out.line(line);
            for quoted in tail {
                self.out.line(format!("  | {quoted}"));
            }
        }
    }

    fn note(&mut self, text: &str) {
        self.out.line(text);
    }

    fn end(&mut self, ended: &EndedEvent, next: &[String]) {
        self.out.text(&summary::end(&self.progress, ended, next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::recorded;

    #[test]
    fn a_run_in_lines() {
        let mut out = Vec::new();
        let mut screen = Plain::new(Printer::new(&mut out));
        screen.status(&RunStatus { workers: Vec::new(), ..recorded::status() });
        recorded::events().iter().for_each(|event| screen.event(event));
        screen.note("saving");
        screen.end(&recorded::stopped(), &[]);
        drop(screen);
        let expected = "\
run r-k3x9qa, 40 steps
  file:///runs/r-k3x9qa
worker w1 (rank 0) started on n1, process 100
worker w2 (rank 1) started on n1, process 101
generation 1 from step 0 with 2 workers, state from the seed
step 1 of 40 (2%): loss 4.0000, 12.3k tokens/s, 2 workers, generation 1, 9.8s left
step 4 of 40 (10%): loss 1.0000, 12.3k tokens/s, 2 workers, generation 1, 9.0s left
step 8 of 40 (20%): loss 0.5000, 12.3k tokens/s, 2 workers, generation 1, 8.0s left
checkpoint after step 10: 3.00 MiB in 0.50 s, training was blocked for 0.020 s
worker w2 (rank 1) on n1 ended: SIGKILL
  | last words
regrouping: a worker was lost
generation 2 from step 10 with 1 worker, state from its workers, 0.75 s after the last
warning: the store is slow
step 12 of 40 (30%): loss 0.3333, 12.3k tokens/s, 2 workers, generation 1, checkpoint 10, 7.0s left
";
        let text = String::from_utf8(out).unwrap();
        assert_eq!(&text[..expected.len().min(text.len())], expected);
        let tail = "\
step 40 of 40 (100%): loss 0.1000, 12.3k tokens/s, 2 workers, generation 1, checkpoint 10
evaluation after step 40: validation loss NaN
saving
stopped r-k3x9qa after step 10 of 40, 3.0s: stopped
  checkpoint  file:///runs/r-k3x9qa@10
";
        assert!(text.ends_with(tail), "{text}");
    }

    #[test]
    fn slow_steps_all_have_a_line() {
        let mut out = Vec::new();
        let mut screen = Plain::new(Printer::new(&mut out));
        screen.status(&RunStatus { steps: 1_000_000, ..recorded::status() });
        for step in 1..=3 {
            screen.event(&recorded::step(step, 6.0));
        }
        drop(screen);
        assert_eq!(
            String::from_utf8(out).unwrap().lines().filter(|line| line.starts_with("step")).count(),
            3
        );
    }
}
