//! The trainer that Whimbrel calls: the number of samples, the gradient of a shard, the update of a step, and the
//! state.

use whimbrel_worker::{Context, Shard, TensorMut, TensorSpec, Trainer, TrainerError};

use crate::{
    adamw::AdamW,
    model::Model,
    parameters::{self, Config},
    sample::{self, SampleError, Sampling},
    settings::Settings,
    text::{self, Text},
};

/// The number of validation samples, evenly spaced in the validation text.
const VALIDATION_SAMPLES: usize = 64;

/// The character model in training. Sample `i` is the training text from character `i` on, `context + 1` characters
/// long.
#[derive(Debug)]
pub struct CharLm {
    config: Config,
    text: Text,
    /// Part of the state, so that a checkpoint defines its symbols.
    vocabulary: [i64; text::MAX_SYMBOLS],
    parameters: Vec<f32>,
    optimizer: AdamW,
    /// For the samples of a shard.
    model: Model,
    /// For one validation sample.
    validation: Model,
    global_batch: u32,
    samples_per_shard: usize,
    /// The symbols of a shard, and for each symbol the one that follows.
    tokens: Vec<u8>,
    next: Vec<u8>,
}

/// A shard or a state that does not fit this run.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The state was trained on another text.
    #[error(
        "the checkpoint's vocabulary is not that of the text: the checkpoint was trained on another text; \
         give every worker the text that the run started with"
    )]
    Vocabulary,
    /// A shard of another size.
    #[error("shard {index} of step {step} has {found} samples; every shard of this run has {expected}")]
    Size {
        /// The step.
        step: u64,
        /// The shard.
        index: u32,
        /// Its number of samples.
        found: usize,
        /// The number of samples of every shard.
        expected: usize,
    },
    /// A sample beyond the text.
    #[error("sample {sample} of step {step} does not exist; the text has {samples} samples")]
    Sample {
        /// The step.
        step: u64,
        /// The sample.
        sample: u64,
        /// The number of samples.
        samples: u64,
    },
}

impl CharLm {
    /// The trainer at step 0 of a run.
    pub fn new(context: &Context) -> Result<Self, TrainerError> {
        let settings: Settings = context.settings()?;
        settings.check()?;
        let text = Text::load(settings.text.as_deref(), settings.context, settings.validation_fraction)?;
        let config = settings.config(text.vocabulary.len());
        let samples_per_shard = (context.global_batch / context.shards.max(1)).max(1) as usize;
        Ok(Self {
            config,
            vocabulary: text.vocabulary.slots(),
            text,
            parameters: parameters::initial(&config, context.seed),
            optimizer: AdamW::new(config, settings, context.steps),
            model: Model::new(config, samples_per_shard),
            validation: Model::new(config, 1),
            global_batch: context.global_batch,
            samples_per_shard,
            tokens: Vec::new(),
            next: Vec::new(),
        })
    }

    /// Continues `prompt` with the current parameters.
    pub fn write(&self, prompt: &str, sampling: &Sampling) -> Result<String, SampleError> {
        sample::sample(&self.config, &self.text.vocabulary, &self.parameters, prompt, sampling)
    }

    /// Copies the text of a shard to `tokens` and `next`.
    fn read(&mut self, shard: &Shard<'_>) -> Result<(), ShardError> {
        let Shard { step, index, samples } = *shard;
        let (found, expected) = (samples.len(), self.samples_per_shard);
        if found != expected {
            return Err(ShardError::Size { step, index, found, expected });
        }
        self.tokens.clear();
        self.next.clear();
        for &sample in samples {
            let outside = ShardError::Sample { step, sample, samples: self.samples() };
            let start = usize::try_from(sample).ok().filter(|_| sample < self.samples()).ok_or(outside)?;
            let text = &self.text.training[start..=start + self.config.context];
            self.tokens.extend_from_slice(&text[..self.config.context]);
            self.next.extend_from_slice(&text[1..]);
        }
        Ok(())
    }

    /// Checks the vocabulary of a state that was read from a checkpoint.
    fn check_vocabulary(&self) -> Result<(), ShardError> {
        if self.vocabulary == self.text.vocabulary.slots() { Ok(()) } else { Err(ShardError::Vocabulary) }
    }
}

impl Trainer for CharLm {
    fn samples(&self) -> u64 {
        (self.text.training.len() - self.config.context) as u64
    }

    fn tokens_per_sample(&self) -> Option<u64> {
        Some(self.config.context as u64)
    }

    fn gradients(&self) -> Vec<TensorSpec> {
        parameters::specs(&self.config)
    }

    fn state(&mut self) -> Vec<TensorMut<'_>> {
        let mut tensors = vec![TensorMut::i64("vocabulary", [text::MAX_SYMBOLS], &mut self.vocabulary)];
        tensors.extend(parameters::named(&self.config, "", &mut self.parameters));
        tensors.extend(self.optimizer.state());
        tensors
    }

    fn shard(&mut self, shard: &Shard<'_>, gradient: &mut [f32]) -> Result<f64, TrainerError> {
        self.check_vocabulary()?;
        self.read(shard)?;
        // A sample's loss is the mean over its characters.
        let share = 1.0 / (f64::from(self.global_batch) * self.config.context as f64);
        let loss = self.model.backward(&self.parameters, &self.tokens, &self.next, share as f32, gradient);
        Ok(loss * share)
    }

    fn apply(&mut self, step: u64, gradient: &[f32]) -> Result<(), TrainerError> {
        Ok(self.optimizer.apply(step, &mut self.parameters, gradient)?)
    }

    fn evaluate(&mut self, part: u32, parts: u32) -> Result<Option<f64>, TrainerError> {
        let (text, length) = (&self.text.validation, self.config.context);
        if text.is_empty() {
            return Ok(None);
        }
        let last = text.len() - length - 1;
        let mine = (0..VALIDATION_SAMPLES).skip(part as usize).step_by(parts.max(1) as usize);
        let losses = mine.map(|sample| {
            let start = last * sample / (VALIDATION_SAMPLES - 1);
            let (tokens, next) = (&text[start..start + length], &text[start + 1..=start + length]);
            let loss = self.validation.loss(&self.parameters, tokens, next);
            round(loss / (VALIDATION_SAMPLES * length) as f64)
        });
        Ok(Some(losses.sum()))
    }
}

/// Rounds to a multiple of 2⁻⁴⁰. Such numbers are added without rounding, so the sum does not depend on how the workers
/// share its terms.
fn round(value: f64) -> f64 {
    const UNIT: f64 = (1_u64 << 40) as f64;
    (value * UNIT).round() / UNIT
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::bare::Bare;

    /// A run on a small text.
    fn context(folder: &Path) -> Context {
        let path = folder.join("text.txt");
        std::fs::write(&path, "the quick brown fox jumps over the lazy dog. ".repeat(60)).unwrap();
        let settings = json!({
            "layers": 2, "heads": 2, "width": 32, "context": 16, "learning_rate": 0.01, "warmup": 10, "text": path,
        });
        Context { seed: 7, global_batch: 12, shards: 6, steps: 80, threads: 1, settings }
    }

    fn bits(trainer: &mut CharLm) -> Vec<u8> {
        let state = whimbrel_state::StateBytes::new(trainer.state()).unwrap();
        state.read(0..state.layout().bytes()).flatten().copied().collect()
    }

    #[test]
    fn the_loss_falls() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let mut training = Bare::new(&context, CharLm::new(&context).unwrap());
        let before = training.evaluate().unwrap().unwrap();
        assert!((before - 28_f64.ln()).abs() < 0.1, "28 symbols, all equally likely: {before}");
        let losses: Vec<f64> = (0..context.steps).map(|_| training.step().unwrap()).collect();
        let after = training.evaluate().unwrap().unwrap();
        assert!(after < 0.7 && losses[79] < 0.7, "validation {before} to {after}, losses {losses:?}");
    }

    #[test]
    fn equal_runs_end_with_equal_bits_and_other_seeds_with_other_bits() {
        let folder = tempfile::tempdir().unwrap();
        let end = |seed| {
            let context = Context { seed, ..context(folder.path()) };
            let mut training = Bare::new(&context, CharLm::new(&context).unwrap());
            for _ in 0..3 {
                training.step().unwrap();
            }
            bits(training.trainer())
        };
        assert_eq!(end(1), end(1));
        assert_ne!(end(1), end(2));
    }

    #[test]
    fn a_shard_gives_the_same_bits_after_any_other_shard() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let mut trainer = CharLm::new(&context).unwrap();
        let elements = trainer.gradients().iter().map(|tensor| tensor.checked_elements().unwrap()).sum();
        let (mut first, mut again) = (vec![f32::NAN; elements], vec![f32::INFINITY; elements]);
        let shard = Shard { step: 3, index: 1, samples: &[5, 90] };
        let loss = trainer.shard(&shard, &mut first).unwrap();
        trainer.shard(&Shard { step: 9, index: 0, samples: &[1000, 0] }, &mut again).unwrap();
        trainer.evaluate(0, 1).unwrap();
        assert_eq!(trainer.shard(&shard, &mut again).unwrap(), loss);
        assert_eq!(first, again);
    }

    #[test]
    fn an_evaluation_gives_the_same_bits_for_any_number_of_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = CharLm::new(&context(folder.path())).unwrap();
        let whole = trainer.evaluate(0, 1).unwrap().unwrap();
        for parts in [2, 3, 7, 64, 100] {
            let sum: f64 = (0..parts).map(|part| trainer.evaluate(part, parts).unwrap().unwrap()).sum();
            assert_eq!(sum, whole, "{parts} parts");
        }
    }

    #[test]
    fn a_trainer_with_a_restored_state_continues_with_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let mut old = Bare::new(&context, CharLm::new(&context).unwrap());
        old.step().unwrap();
        let saved = bits(old.trainer());

        let mut new = CharLm::new(&Context { seed: 99, ..context.clone() }).unwrap();
        whimbrel_state::StateBytes::new(new.state()).unwrap().write(0, &saved);
        let gradient = vec![0.01; old.trainer().parameters.len()];
        old.trainer().apply(1, &gradient).unwrap();
        new.apply(1, &gradient).unwrap();
        assert_eq!(bits(&mut new), bits(old.trainer()));
    }

    #[test]
    fn invalid_shards_and_settings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        let mut trainer = CharLm::new(&context).unwrap();
        let mut gradient = vec![0.0; trainer.parameters.len()];
        let mut error = |samples: &[u64]| {
            trainer.shard(&Shard { step: 4, index: 2, samples }, &mut gradient).unwrap_err().to_string()
        };
        assert!(error(&[1]).contains("shard 2 of step 4 has 1 samples"));
        assert!(error(&[1, u64::MAX]).contains("has 2414 samples"), "{}", error(&[1, u64::MAX]));
        trainer.vocabulary[0] += 1;
        let error = trainer.shard(&Shard { step: 4, index: 2, samples: &[1, 2] }, &mut gradient).unwrap_err();
        assert!(error.to_string().contains("another text"), "{error}");

        let with = |settings| CharLm::new(&Context { settings, ..context.clone() }).unwrap_err().to_string();
        assert!(with(json!({"layer": 4})).contains("unknown field `layer`"));
        assert!(with(json!({"heads": 5})).contains("not a multiple"));
        assert!(with(json!({"text": "/no/such/text"})).contains("/no/such/text"));
    }
}
