//! A worker that trains the character model; or, as `char-lm sample`, a reader of what it has learned.

use std::{
    error::Error,
    io::{self, Write},
    iter::successors,
    process::ExitCode,
};

use char_lm::{
    CharLm, Settings, parameters,
    sample::{self, Sampling},
    text::{self, Vocabulary},
};
use clap::{Parser, Subcommand};
use whimbrel_worker::{Checkpoint, TensorMut, TrainerError};

/// Trains a character-level GPT under Whimbrel: without a command it is a worker, and `whimbrel run` starts it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Write text with the model of a checkpoint.
    Sample {
        /// The run's directory in its store, and the step if not the latest: `runs/char-lm-x1@400`.
        checkpoint: String,
        /// What to continue.
        #[arg(long, default_value = "\n")]
        prompt: String,
        /// Characters to write.
        #[arg(long, default_value_t = 400)]
        length: usize,
        /// Boldness: 0 always takes the likeliest character.
        #[arg(long, default_value_t = 0.8)]
        temperature: f32,
        /// Choose among this many of the likeliest characters only.
        #[arg(long)]
        top_k: Option<usize>,
        /// Equal seeds write equal text.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else {
        return whimbrel_worker::train(CharLm::new);
    };
    let Command::Sample { checkpoint, prompt, length, temperature, top_k, seed } = command;
    match write(&checkpoint, &prompt, &Sampling { length, temperature, top_k, seed }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = successors(Some(&*error as &dyn Error), |&error| error.source());
            let reasons: Vec<String> = causes.map(ToString::to_string).collect();
            // Nothing is left to be done where even this cannot be written.
            let _ = writeln!(io::stderr(), "error: {}", reasons.join(": "));
            ExitCode::FAILURE
        }
    }
}

/// Writes text with the model of a checkpoint. A checkpoint says all there is to know: the settings, the vocabulary and
/// the parameters.
fn write(checkpoint: &str, prompt: &str, sampling: &Sampling) -> Result<(), TrainerError> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    let settings: Settings = checkpoint.settings()?;
    settings.check()?;

    let mut slots = [0; text::LIMIT];
    checkpoint.load(vec![TensorMut::i64("vocabulary", [text::LIMIT], &mut slots)])?;
    let vocabulary = Vocabulary::from_slots(&slots).ok_or("the checkpoint's vocabulary is damaged")?;

    let config = settings.config(vocabulary.len());
    let mut parameters = vec![0.0; parameters::count(&config)];
    checkpoint.load(parameters::named(&config, "", &mut parameters))?;

    let text = sample::sample(&config, &vocabulary, &parameters, prompt, sampling)?;
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}
