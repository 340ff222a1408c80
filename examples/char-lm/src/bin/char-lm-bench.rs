//! Measures the model without Whimbrel.
//!
//! - `char-lm-bench step` times the same step as `bench/pytorch.py`;
//! - `char-lm-bench bare` times the steps of a run in one process without Whimbrel, the baseline of a run's overhead;
//! - `char-lm-bench train` trains like a run, and shows losses and generated text.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use char_lm::{CharLm, Settings, adamw::AdamW, bare::Bare, math, model::Model, parameters, sample::Sampling};
use clap::{Args, Parser, Subcommand};
use rustix::time::{ClockId, clock_gettime};
use whimbrel_worker::{Context, TrainerError};

/// Measures the character model without Whimbrel.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Time the same step as bench/pytorch.py.
    Step {
        /// Steps to time, after 30 steps of warmup.
        #[arg(long, default_value_t = 300)]
        steps: u64,
    },
    /// Time the steps of a run in one process.
    Bare(Run),
    /// Train like a run; show losses, and generated text at the end.
    Train(Run),
}

/// A run, by default that of `run.toml`.
#[derive(Args)]
struct Run {
    /// Steps to train.
    #[arg(long, default_value_t = 1000)]
    steps: u64,
    /// Samples per step.
    #[arg(long, default_value_t = 48)]
    global_batch: u32,
    /// Shards per step.
    #[arg(long, default_value_t = 16)]
    shards: u32,
    /// The run's seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// `[train.settings]`, as JSON.
    #[arg(long, default_value = "{}", value_parser = |json: &str| serde_json::from_str::<serde_json::Value>(json))]
    settings: serde_json::Value,
}

fn main() -> Result<(), TrainerError> {
    let mut screen = io::stdout().lock();
    match Arguments::parse().measure {
        Measure::Step { steps } => step(steps, &mut screen),
        Measure::Bare(run) => bare(&run, &mut screen),
        Measure::Train(run) => train(&run, &mut screen),
    }
}

/// Times the model of nanoGPT's CPU example with a batch of 12.
fn step(steps: u64, screen: &mut impl Write) -> Result<(), TrainerError> {
    const BATCH: usize = 12;
    let settings = Settings { learning_rate: 1e-3, ..Settings::default() };
    let config = settings.config(65);
    let count = BATCH * config.context;
    let scale = 1.0 / count as f32;
    for shards in [1, 2] {
        let mut model = Model::new(config, BATCH / shards);
        let mut parameters = parameters::initial(&config, 1);
        let mut optimizer = AdamW::new(config, settings.clone(), steps);
        let mut gradient = vec![0.0; parameters.len()];
        let mut sum = gradient.clone();
        let times = measure(30, steps, |step| {
            let tokens: Vec<u8> = (0..count).map(|i| ((i * 7 + step as usize) % 65) as u8).collect();
            let next: Vec<u8> = tokens.iter().map(|token| (token * 3 + 1) % 65).collect();
            let parts = tokens.chunks_exact(count / shards).zip(next.chunks_exact(count / shards));
            for (part, (tokens, next)) in parts.enumerate() {
                if part == 0 {
                    model.backward(&parameters, tokens, next, scale, &mut sum);
                } else {
                    model.backward(&parameters, tokens, next, scale, &mut gradient);
                    math::add_to(&mut sum, &gradient);
                }
            }
            Ok(optimizer.apply(step, &mut parameters, &sum)?)
        })?;
        times.show(&format!("{BATCH} samples as {shards} shards"), count, screen)?;
    }
    Ok(())
}

fn bare(run: &Run, screen: &mut impl Write) -> Result<(), TrainerError> {
    let context = run.context();
    let mut training = Bare::new(&context, CharLm::new(&context)?);
    let characters = context.settings::<Settings>()?.context * run.global_batch as usize;
    let times = measure(5, run.steps, |_| training.step().map(drop))?;
    times.show(&format!("{} samples as {} shards", run.global_batch, run.shards), characters, screen)
}

fn train(run: &Run, screen: &mut impl Write) -> Result<(), TrainerError> {
    let context = run.context();
    let mut training = Bare::new(&context, CharLm::new(&context)?);
    for step in 1..=run.steps {
        let loss = training.step()?;
        if step.is_multiple_of(200) || step == run.steps {
            let validation = training.evaluate()?.map_or_else(|| "-".into(), |loss| format!("{loss:.4}"));
            writeln!(screen, "step {step:5}  loss {loss:.4}  validation {validation}")?;
        }
    }
    let sampling = Sampling { length: 400, temperature: 0.8, top_k: None, seed: 1 };
    writeln!(screen, "\n{}", training.trainer().write("The ", &sampling)?)?;
    Ok(())
}

impl Run {
    fn context(&self) -> Context {
        Context {
            seed: self.seed,
            global_batch: self.global_batch,
            shards: self.shards,
            steps: self.steps,
            threads: 1,
            settings: self.settings.clone(),
        }
    }
}

/// The time of each step, sorted, and the processor time of all.
struct Times {
    steps: Vec<Duration>,
    processor: Duration,
}

/// Times `steps` calls of `step` after `warmup` calls.
fn measure(
    warmup: u64,
    steps: u64,
    mut step: impl FnMut(u64) -> Result<(), TrainerError>,
) -> Result<Times, TrainerError> {
    for number in 0..warmup {
        step(number)?;
    }
    let mut times = Vec::new();
    let processor = processor_time();
    for number in warmup..warmup + steps {
        let start = Instant::now();
        step(number)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(Times { steps: times, processor: processor_time().saturating_sub(processor) })
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

impl Times {
    fn show(&self, what: &str, characters: usize, screen: &mut impl Write) -> Result<(), TrainerError> {
        let (Some(&fastest), Some(&median)) = (self.steps.first(), self.steps.get(self.steps.len() / 2))
        else {
            return Err("there are no steps to time; give --steps 1 or more".into());
        };
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let processor = milliseconds(self.processor) / self.steps.len() as f64;
        writeln!(
            screen,
            "{what:24}  median {:6.2} ms  fastest {:6.2} ms  processor {processor:6.2} ms  {:8.0} characters/s",
            milliseconds(median),
            milliseconds(fastest),
            characters as f64 / median.as_secs_f64(),
        )?;
        Ok(())
    }
}
