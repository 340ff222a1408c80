//! Generates text with a trained model, character by character.

use crate::{model::Model, parameters::Config, random::Random, text::Vocabulary};

/// How to choose characters.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// The number of characters to generate after the prompt.
    pub length: usize,
    /// Divides the logits: below 1 the text is less random, above 1 more. Not negative. At 0 the most likely character
    /// is always chosen.
    pub temperature: f32,
    /// Choose only among this many of the most likely characters.
    pub top_k: Option<usize>,
    /// Equal seeds give equal text.
    pub seed: u64,
}

/// Text cannot be generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// The prompt is empty.
    #[error("the prompt is empty; give at least one character")]
    EmptyPrompt,
    /// A character of the prompt is not in the vocabulary.
    #[error(
        "the model does not know the character {0:?} of the prompt; it did not occur in the training text"
    )]
    UnknownCharacter(char),
    /// The temperature is negative or not finite.
    #[error("the temperature is {0}; it must be 0 or a positive number, such as 0.8")]
    Temperature(f32),
    /// `top_k` is 0.
    #[error("top-k is 0; it must be at least 1")]
    TopK,
}

/// Continues `prompt`. Returns the prompt and the generated text.
pub fn sample(
    config: &Config,
    vocabulary: &Vocabulary,
    parameters: &[f32],
    prompt: &str,
    sampling: &Sampling,
) -> Result<String, SampleError> {
    if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
        return Err(SampleError::Temperature(sampling.temperature));
    }
    if sampling.top_k == Some(0) {
        return Err(SampleError::TopK);
    }
    let symbol = |c| vocabulary.symbol(c).ok_or(SampleError::UnknownCharacter(c));
    let mut symbols = prompt.chars().map(symbol).collect::<Result<Vec<u8>, _>>()?;
    if symbols.is_empty() {
        return Err(SampleError::EmptyPrompt);
    }
    let mut model = Model::new(*config, 1);
    let mut random = Random::new(sampling.seed);
    for _ in 0..sampling.length {
        // The window is padded at its end: the logits of a character do not depend on later ones.
        let seen = &symbols[symbols.len().saturating_sub(config.context)..];
        let mut window = seen.to_vec();
        window.resize(config.context, 0);
        let logits = model.forward(parameters, &window).chunks_exact(config.vocabulary).nth(seen.len() - 1);
        symbols.push(choose(logits.unwrap_or_default(), sampling, random.uniform()));
    }
    Ok(symbols.into_iter().map(|symbol| vocabulary.character(symbol)).collect())
}

/// Chooses a symbol by the logits. `draw` is uniform in `0 ≤ x < 1`.
fn choose(logits: &[f32], sampling: &Sampling, draw: f32) -> u8 {
    let mut likeliest: Vec<(u8, f32)> = (0..=u8::MAX).zip(logits.iter().copied()).collect();
    likeliest.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let first = likeliest.first().copied().unwrap_or_default();
    if sampling.temperature == 0.0 {
        return first.0;
    }
    likeliest.truncate(sampling.top_k.unwrap_or(usize::MAX));
    let weight = |logit: f32| ((logit - first.1) / sampling.temperature).exp();
    let mut left = draw * likeliest.iter().map(|(_, logit)| weight(*logit)).sum::<f32>();
    let chosen = likeliest.iter().find(|(_, logit)| {
        left -= weight(*logit);
        left < 0.0
    });
    // Rounding may leave a small remainder after the last symbol.
    chosen.or(likeliest.last()).map_or(first.0, |(symbol, _)| *symbol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters;

    const CONFIG: Config = Config { layers: 1, heads: 2, width: 8, context: 4, vocabulary: 5 };

    fn write(sampling: &Sampling) -> String {
        let parameters: Vec<f32> = parameters::initial(&CONFIG, 1).iter().map(|p| p * 20.0).collect();
        sample(&CONFIG, &Vocabulary::of("abcde"), &parameters, "bad", sampling).unwrap()
    }

    #[test]
    fn equal_seeds_give_equal_text_and_other_seeds_other_text() {
        let seeded = |seed| Sampling { length: 40, temperature: 1.0, top_k: None, seed };
        let text = write(&seeded(1));
        assert!(text.len() == 43 && text.starts_with("bad"), "{text}");
        assert_eq!(text, write(&seeded(1)));
        assert_ne!(text, write(&seeded(2)));
    }

    #[test]
    fn temperature_0_and_top_k_1_both_choose_the_most_likely_symbol() {
        let cold = write(&Sampling { length: 20, temperature: 0.0, top_k: None, seed: 1 });
        let narrow = write(&Sampling { length: 20, temperature: 1.0, top_k: Some(1), seed: 2 });
        assert_eq!(cold, narrow);
    }

    #[test]
    fn symbols_are_chosen_with_the_probabilities_of_their_logits() {
        let sampling = Sampling { length: 0, temperature: 0.5, top_k: Some(2), seed: 0 };
        let mut random = Random::new(8);
        let mut counts = [0_u32; 3];
        for _ in 0..10_000 {
            counts[usize::from(choose(&[0.0, -1.0, 0.549_306_15], &sampling, random.uniform()))] += 1;
        }
        // e^(0.5493 / 0.5) = 3.
        assert_eq!(counts[1], 0);
        assert!(counts[2].abs_diff(7500) < 200, "{counts:?}");
    }

    #[test]
    fn invalid_arguments_are_refused() {
        let good = Sampling { length: 1, temperature: 1.0, top_k: None, seed: 0 };
        let parameters = parameters::initial(&CONFIG, 1);
        let error = |prompt, sampling: Sampling| {
            sample(&CONFIG, &Vocabulary::of("abcde"), &parameters, prompt, &sampling).unwrap_err()
        };
        assert_eq!(error("", good.clone()), SampleError::EmptyPrompt);
        assert_eq!(error("az", good.clone()), SampleError::UnknownCharacter('z'));
        assert_eq!(
            error("a", Sampling { temperature: -1.0, ..good.clone() }),
            SampleError::Temperature(-1.0)
        );
        assert_eq!(error("a", Sampling { top_k: Some(0), ..good }), SampleError::TopK);
    }
}
