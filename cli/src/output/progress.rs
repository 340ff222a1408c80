//! The status of a run, added up from its events. There is no clock here: events say how long things took.

use std::time::Duration;

use whimbrel_proto::v1::{Phase, RunStatus, StepEvent, run_event::Event};

/// Rates are means over about this many seconds; recent steps weigh more.
const MEMORY: f64 = 10.0;

/// The status of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) run: String,
    /// Steps of the whole run.
    pub(crate) steps: u64,
    /// Steps applied.
    pub(crate) step: u64,
    pub(crate) loss: Option<f64>,
    /// The last validation loss, and the step after which it was measured, if known.
    pub(crate) val_loss: Option<(Option<u64>, f64)>,
    pub(crate) workers: u32,
    pub(crate) generation: u64,
    /// Steps applied in the newest checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// The run is ending: workers are expected to end now.
    pub(crate) ending: bool,
    rate: Rate,
}

/// Sums over the steps so far, in which the weight of a step decays with time.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    seconds: f64,
    steps: f64,
    samples: f64,
    tokens: Option<f64>,
}

/// Work per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Throughput {
    Tokens(f64),
    Samples(f64),
}

impl Progress {
    /// Takes over a status: at first, and after a gap in the events.
    pub(crate) fn status(&mut self, status: &RunStatus) {
        let members = status.workers.iter().filter(|worker| worker.share > 0).count();
        *self = Self {
            run: status.run.clone(),
            steps: status.steps,
            step: status.step,
            loss: status.loss,
            val_loss: status.val_loss.map(|loss| (None, loss)),
            workers: members as u32,
            generation: status.generation,
            checkpoint: status.checkpoint,
            ending: is_ending(status.phase()),
            rate: self.rate,
        };
    }

    /// Adds an event.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Generation(event) => {
                (self.generation, self.workers) = (event.generation, event.workers);
                self.step = event.step;
            }
            Event::Step(event) => {
                (self.step, self.loss) = (event.step, Some(event.loss));
                (self.generation, self.workers) = (event.generation, event.workers);
                self.rate.step(event);
            }
            Event::Evaluation(event) => self.val_loss = Some((Some(event.step), event.val_loss)),
            Event::Checkpoint(event) => self.checkpoint = Some(event.step),
            Event::Phase(event) => self.ending = is_ending(event.phase()),
            Event::Status(_)
            | Event::Worker(_)
            | Event::Exit(_)
            | Event::Interval(_)
            | Event::Replicated(_)
            | Event::Warning(_)
            | Event::Ended(_) => {}
        }
    }

    /// The current throughput; `None` before the first step.
    pub(crate) fn throughput(&self) -> Option<Throughput> {
        let Rate { seconds, samples, tokens, .. } = self.rate;
        (seconds > 0.0).then(|| match tokens {
            Some(tokens) => Throughput::Tokens(tokens / seconds),
            None => Throughput::Samples(samples / seconds),
        })
    }

    /// The time to the end at the current rate.
    pub(crate) fn left(&self) -> Option<Duration> {
        let Rate { seconds, steps, .. } = self.rate;
        let left = self.steps.saturating_sub(self.step) as f64;
        if steps > 0.0 { Duration::try_from_secs_f64(left * seconds / steps).ok() } else { None }
    }

    /// Whole percent of the steps.
    pub(crate) fn percent(&self) -> u64 {
        (u128::from(self.step) * 100 / u128::from(self.steps.max(1))) as u64
    }
}

fn is_ending(phase: Phase) -> bool {
    matches!(phase, Phase::Stopping | Phase::Stopped | Phase::Finished | Phase::Failed | Phase::Cancelled)
}

impl Rate {
    fn step(&mut self, event: &StepEvent) {
        // A step of unknown duration does not count.
        if !(event.seconds > 0.0 && event.seconds.is_finite()) {
            return;
        }
        let weight = (-event.seconds / MEMORY).exp();
        let tokens = event.tokens.map(|tokens| self.tokens.unwrap_or(0.0) * weight + tokens as f64);
        *self = Self {
            seconds: self.seconds * weight + event.seconds,
            steps: self.steps * weight + 1.0,
            samples: self.samples * weight + event.samples as f64,
            tokens,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::recorded;

    #[test]
    fn the_rate_follows_the_run_and_gives_the_time_left() {
        let mut progress = Progress::default();
        progress.status(&recorded::status());
        assert_eq!((progress.throughput(), progress.left()), (None, None));
        for step in 1..=10 {
            progress.event(&recorded::step(step, 0.25));
        }
        let Some(Throughput::Tokens(tokens)) = progress.throughput() else { panic!("no rate") };
        assert!((tokens - 3072.0 / 0.25).abs() < 1e-6, "{tokens}");
        let left = progress.left().unwrap().as_secs_f64();
        assert!((left - 30.0 * 0.25).abs() < 1e-6, "{left}");

        // After 30 s at a quarter of the speed, the steps before hardly count.
        for step in 11..=40 {
            progress.event(&recorded::step(step, 1.0));
        }
        let Some(Throughput::Tokens(tokens)) = progress.throughput() else { panic!("no rate") };
        assert!((3072.0..3300.0).contains(&tokens), "{tokens}");
        assert_eq!((progress.percent(), progress.left()), (100, Some(Duration::ZERO)));
    }

    #[test]
    fn steps_without_tokens_count_in_samples_and_invalid_durations_not_at_all() {
        let mut progress = Progress::default();
        for seconds in [0.0, f64::NAN, -1.0] {
            progress.event(&recorded::step(1, seconds));
        }
        assert_eq!(progress.throughput(), None);
        let Event::Step(step) = recorded::step(2, 2.0) else { panic!("a step") };
        progress.event(&Event::Step(StepEvent { tokens: None, ..step }));
        assert_eq!(progress.throughput(), Some(Throughput::Samples(24.0)));
    }
}
