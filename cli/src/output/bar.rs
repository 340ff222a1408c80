//! A run on a terminal: a bar, its figures below it, and above it a line for each event that a person should notice.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use whimbrel_proto::v1::{EndedEvent, Phase, RunStatus, run_event::Event};

use super::{print::Printer, progress::Progress, screen::Screen, summary, terminal::no_color, words};

/// How often the clock on the bar moves when nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// Draws a run on a terminal.
pub(crate) struct Bar {
    bars: MultiProgress,
    bar: ProgressBar,
    progress: Progress,
    /// What the run does while it does not train.
    doing: String,
}

impl Bar {
    pub(crate) fn new(bars: &MultiProgress) -> Self {
        let template = if no_color() {
            "{spinner} {bar:32} {pos}/{len} steps  {elapsed}{prefix}\n  {wide_msg}"
        } else {
            "{spinner:.cyan} {bar:32.cyan/dim} {pos}/{len} steps  {elapsed}{prefix}\n  {wide_msg}"
        };
        // The template is a constant; if it were wrong, indicatif's own would do.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        // Hidden until the first status.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style.progress_chars("━╸─"));
        Self { bars: bars.clone(), bar, progress: Progress::default(), doing: String::new() }
    }

    fn above(&self, line: &str) {
        self.bars.suspend(|| Printer::stderr().line(line));
    }

    fn draw(&self) {
        let Progress { step, steps, .. } = self.progress;
        self.bar.set_length(steps);
        self.bar.set_position(step);
        let left = self.progress.left().filter(|_| self.doing.is_empty() && step < steps);
        self.bar.set_prefix(left.map_or(String::new(), |left| format!("  {} left", words::time(left))));
        let figures = words::figures(&self.progress);
        let parts = [self.doing.as_str(), figures.as_str()];
        self.bar
            .set_message(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" | "));
    }

    fn phase(&mut self, phase: Phase, detail: &str) {
        self.doing = match (phase, detail) {
            (Phase::Training, _) => String::new(),
            (phase, "") => words::phase(phase).to_owned(),
            (phase, detail) => format!("{}: {detail}", words::phase(phase)),
        };
    }
}

impl Screen for Bar {
    fn status(&mut self, status: &RunStatus) {
        if self.progress.run.is_empty() {
            for line in summary::start(status) {
                self.above(&line);
            }
            self.bars.add(self.bar.clone());
            self.bar.enable_steady_tick(TICK);
        }
        self.progress.status(status);
        self.phase(status.phase(), &status.detail);
        self.draw();
    }

    fn event(&mut self, event: &Event) {
        self.progress.event(event);
        match event {
            Event::Phase(event) => self.phase(event.phase(), &event.detail),
            // The bar shows these.
            Event::Step(_)
            | Event::Evaluation(_)
            | Event::Checkpoint(_)
            | Event::Interval(_)
            | Event::Replicated(_)
            | Event::Worker(_) => {}
            event => {
                if let Some((line, tail)) = words::event(event, &self.progress) {
                    self.above(&line);
                    for quoted in tail {
                        self.above(&format!("  | {quoted}"));
                    }
                }
            }
        }
        self.draw();
    }

    fn note(&mut self, text: &str) {
        self.above(text);
    }

    fn end(&mut self, ended: &EndedEvent, next: &[String]) {
        self.bar.finish_and_clear();
        Printer::stdout().text(&summary::end(&self.progress, ended, next));
    }
}

impl Drop for Bar {
    /// Clears the bar: what is printed next starts on a clean line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
