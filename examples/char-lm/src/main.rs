//! The program: without a command it is a worker that trains the character model; `char-lm sample` generates text from
//! a checkpoint.

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

/// Trains a character-level GPT under Whimbrel. Without a command it is a worker: `whimbrel run` starts it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Write the text that the model learns where the settings name none: the texts of all SPDX licences.
    Text,
    /// Generate text with the model of a checkpoint.
    Sample {
        /// The run's directory in its store, with `@STEP` for an older checkpoint: `runs/char-lm-x1@400`.
        checkpoint: String,
        /// The text to continue.
        #[arg(long, default_value = "\n")]
        prompt: String,
        /// The number of characters to generate.
        #[arg(long, default_value_t = 400)]
        length: usize,
        /// Randomness: 0 always takes the most likely character.
        #[arg(long, default_value_t = 0.8)]
        temperature: f32,
        /// Choose only among this many of the most likely characters.
        #[arg(long)]
        top_k: Option<usize>,
        /// Equal seeds generate equal text.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else {
        return whimbrel_worker::train(CharLm::new);
    };
    let done = match command {
        Command::Text => io::stdout().write_all(text::licences().as_bytes()).map_err(TrainerError::from),
        Command::Sample { checkpoint, prompt, length, temperature, top_k, seed } => {
            generate(&checkpoint, &prompt, &Sampling { length, temperature, top_k, seed })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = successors(Some(&*error as &dyn Error), |&error| error.source());
            let reasons: Vec<String> = causes.map(ToString::to_string).collect();
            // If standard error cannot be written, the exit code still says that it failed.
            let _ = writeln!(io::stderr(), "error: {}", reasons.join(": "));
            ExitCode::FAILURE
        }
    }
}

/// Generates text with the model of a checkpoint, which holds the settings, the vocabulary and the parameters.
fn generate(checkpoint: &str, prompt: &str, sampling: &Sampling) -> Result<(), TrainerError> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    let settings: Settings = checkpoint.settings()?;
    settings.check()?;

    let mut slots = [0; text::MAX_SYMBOLS];
    checkpoint.load(vec![TensorMut::i64("vocabulary", [text::MAX_SYMBOLS], &mut slots)])?;
    let vocabulary = Vocabulary::from_slots(&slots).ok_or("the checkpoint's vocabulary is damaged")?;

    let config = settings.config(vocabulary.len());
    let mut parameters = vec![0.0; parameters::count(&config)];
    checkpoint.load(parameters::named(&config, "", &mut parameters))?;

    let text = sample::sample(&config, &vocabulary, &parameters, prompt, sampling)?;
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}
