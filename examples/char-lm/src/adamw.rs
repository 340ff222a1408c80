//! The optimizer: AdamW over flat buffers, with gradient clipping, warmup and cosine decay.
//!
//! Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.

use std::f64::consts::PI;

use whimbrel_worker::TensorMut;

use crate::{
    math::{self, vectorized},
    parameters::{self, Config},
    settings::Settings,
};

/// The decay of the running mean of gradients.
const BETA_MEAN: f32 = 0.9;
/// The decay of the running mean of squared gradients.
const BETA_SQUARE: f32 = 0.99;
/// Avoids a division by 0 if a gradient has always been 0.
const EPSILON: f32 = 1e-8;
/// A gradient with a larger norm is scaled down to this norm.
const MAX_NORM: f64 = 1.0;

/// The optimizer of a model. Its running means are part of the training state.
#[derive(Debug)]
pub struct AdamW {
    settings: Settings,
    config: Config,
    /// Steps of the run, for the learning rate.
    steps: u64,
    /// The running mean of each gradient.
    mean: Vec<f32>,
    /// The running mean of each squared gradient.
    square: Vec<f32>,
}

/// A gradient that cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the gradient of step {step} has the norm {norm}; try a lower learning_rate")]
pub struct NotFinite {
    /// The step, counted from 0.
    pub step: u64,
    /// The norm: infinite or NaN.
    pub norm: f64,
}

impl AdamW {
    /// The optimizer at the start of a run of `steps` steps.
    pub fn new(config: Config, settings: Settings, steps: u64) -> Self {
        let zeros = vec![0.0; parameters::count(&config)];
        Self { settings, config, steps, mean: zeros.clone(), square: zeros }
    }

    /// The running means as tensors of the state.
    pub fn state(&mut self) -> Vec<TensorMut<'_>> {
        let mut tensors = parameters::named(&self.config, "adam.m.", &mut self.mean);
        tensors.extend(parameters::named(&self.config, "adam.v.", &mut self.square));
        tensors
    }

    /// Updates the parameters by the gradient of step `step`, counted from 0.
    pub fn apply(&mut self, step: u64, parameters: &mut [f32], gradient: &[f32]) -> Result<(), NotFinite> {
        let norm = math::norm(gradient);
        if !norm.is_finite() {
            return Err(NotFinite { step, norm });
        }
        let rate = self.learning_rate(step);
        // The running means start at 0. Dividing by the total weight of their terms removes that bias.
        let weight = |beta: f32| 1.0 - f64::from(beta).powf((step + 1) as f64);
        let mut update = Update {
            clip: (MAX_NORM / norm).min(1.0) as f32,
            rate: (rate / weight(BETA_MEAN)) as f32,
            unbias_square: (1.0 / weight(BETA_SQUARE)) as f32,
            keep: 1.0,
        };
        let mut start = 0;
        for tensor in parameters::specs(&self.config) {
            let range = start..start + tensor.shape.iter().product::<usize>();
            start = range.end;
            // Weight decay applies to matrices, not to the gains of layer norms.
            let decay = if tensor.shape.len() > 1 { self.settings.weight_decay } else { 0.0 };
            update.keep = (1.0 - rate * decay) as f32;
            let (mean, square) = (&mut self.mean[range.clone()], &mut self.square[range.clone()]);
            advance(update, &mut parameters[range.clone()], &gradient[range], mean, square);
        }
        Ok(())
    }

    /// The learning rate of a step: a linear rise, then a cosine down to a tenth.
    fn learning_rate(&self, step: u64) -> f64 {
        let Settings { learning_rate: highest, warmup, .. } = self.settings;
        if step < warmup {
            return highest * (step + 1) as f64 / warmup as f64;
        }
        let falling = self.steps.saturating_sub(warmup).max(1);
        let done = ((step - warmup) as f64 / falling as f64).min(1.0);
        highest * (0.1 + 0.45 * (1.0 + (PI * done).cos()))
    }
}

/// The factors of an update that are equal for all elements of a tensor.
#[derive(Clone, Copy)]
struct Update {
    /// The factor that clips the gradient.
    clip: f32,
    /// The learning rate, divided by the total weight of `mean`.
    rate: f32,
    /// One divided by the total weight of `square`.
    unbias_square: f32,
    /// The factor of a parameter that weight decay leaves.
    keep: f32,
}

vectorized! {
    fn advance(update: Update, parameters: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let moments = mean.iter_mut().zip(square);
        for ((parameter, gradient), (mean, square)) in parameters.iter_mut().zip(gradient).zip(moments) {
            let gradient = gradient * update.clip;
            *mean = BETA_MEAN * *mean + (1.0 - BETA_MEAN) * gradient;
            *square = BETA_SQUARE * *square + (1.0 - BETA_SQUARE) * gradient * gradient;
            let deviation = (*square * update.unbias_square).sqrt() + EPSILON;
            *parameter = *parameter * update.keep - update.rate * *mean / deviation;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config { layers: 1, heads: 1, width: 2, context: 2, vocabulary: 2 };

    fn optimizer(steps: u64) -> AdamW {
        AdamW::new(CONFIG, Settings { learning_rate: 0.5, warmup: 4, ..Settings::default() }, steps)
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let optimizer = optimizer(24);
        let rates = [0, 3, 4, 14, 24, 1000].map(|step| optimizer.learning_rate(step));
        let expected = [0.125, 0.5, 0.5, 0.275, 0.05, 0.05];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
    }

    #[test]
    fn the_first_update_has_the_size_of_the_learning_rate_for_any_gradient() {
        for size in [1e-3, 1e6] {
            let count = parameters::count(&CONFIG);
            let (mut parameters, gradient) = (vec![1.0; count], vec![size; count]);
            optimizer(24).apply(0, &mut parameters, &gradient).unwrap();
            // A weight also decays by rate × decay, a gain does not.
            let (weight, gain) = (parameters[0], parameters[count - 1]);
            assert!((weight - (1.0 - 0.125 * 0.1 - 0.125)).abs() < 1e-4, "{weight} at {size}");
            assert!((gain - (1.0 - 0.125)).abs() < 1e-4, "{gain} at {size}");
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        for bad in [f32::NAN, f32::INFINITY] {
            let count = parameters::count(&CONFIG);
            let (mut parameters, mut gradient) = (vec![1.0; count], vec![0.1; count]);
            gradient[3] = bad;
            let error = optimizer(24).apply(7, &mut parameters, &gradient).unwrap_err();
            assert!(error.to_string().contains("step 7"), "{error}");
            assert_eq!(parameters, vec![1.0; count]);
        }
    }
}
