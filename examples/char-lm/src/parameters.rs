//! The position of each parameter in one flat buffer.
//!
//! Gradients and optimizer moments are buffers of the same layout. A worker sums the flat buffer over the network; the
//! names are for checkpoints and errors.

use std::fmt;

use whimbrel_worker::{TensorMut, TensorSpec};

use crate::random::Random;

/// The sizes of a model. All are at least 1, and `heads` divides `width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads per block.
    pub heads: usize,
    /// The length of a character's vector.
    pub width: usize,
    /// The number of characters that the model sees at once.
    pub context: usize,
    /// Distinct characters.
    pub vocabulary: usize,
}

/// A `T` for each parameter of a model: its values, its gradient, …
///
/// Weights are `[outputs, inputs]`, row-major; there are no biases.
#[derive(Debug)]
pub struct Parameters<T> {
    /// Token embedding `[vocabulary, width]`, also the output layer.
    pub wte: T,
    /// Position embedding `[context, width]`.
    pub wpe: T,
    /// The transformer blocks.
    pub blocks: Vec<Block<T>>,
    /// Gain of the last layer norm `[width]`.
    pub lnf: T,
}

/// A `T` for each parameter of a transformer block.
#[derive(Debug)]
pub struct Block<T> {
    /// Gain of the layer norm before attention `[width]`.
    pub ln1: T,
    /// Queries, keys and values `[3 · width, width]`.
    pub qkv: T,
    /// From attention to the residual stream `[width, width]`.
    pub proj: T,
    /// Gain of the layer norm before the feed-forward part `[width]`.
    pub ln2: T,
    /// To the hidden layer `[4 · width, width]`.
    pub fc: T,
    /// From the hidden layer to the residual stream `[width, 4 · width]`.
    pub out: T,
}

impl<T> Parameters<T> {
    /// Calls `next` with the name and shape of each parameter, in the order of the flat buffer.
    fn in_order(config: &Config, mut next: impl FnMut(fmt::Arguments<'_>, &[usize]) -> T) -> Self {
        let width = config.width;
        Self {
            wte: next(format_args!("wte"), &[config.vocabulary, width]),
            wpe: next(format_args!("wpe"), &[config.context, width]),
            blocks: (0..config.layers)
                .map(|block| Block {
                    ln1: next(format_args!("blocks.{block}.ln1"), &[width]),
                    qkv: next(format_args!("blocks.{block}.qkv"), &[3 * width, width]),
                    proj: next(format_args!("blocks.{block}.proj"), &[width, width]),
                    ln2: next(format_args!("blocks.{block}.ln2"), &[width]),
                    fc: next(format_args!("blocks.{block}.fc"), &[4 * width, width]),
                    out: next(format_args!("blocks.{block}.out"), &[width, 4 * width]),
                })
                .collect(),
            lnf: next(format_args!("lnf"), &[width]),
        }
    }
}

impl<'a> Parameters<&'a [f32]> {
    /// The parts of a flat buffer.
    pub fn of(config: &Config, mut flat: &'a [f32]) -> Self {
        Self::in_order(config, |_, shape| {
            let (part, rest) = flat.split_at(shape.iter().product());
            flat = rest;
            part
        })
    }
}

impl<'a> Parameters<&'a mut [f32]> {
    /// The parts of a flat buffer, mutable.
    pub fn of_mut(config: &Config, mut flat: &'a mut [f32]) -> Self {
        Self::in_order(config, |_, shape| {
            let (part, rest) = std::mem::take(&mut flat).split_at_mut(shape.iter().product());
            flat = rest;
            part
        })
    }
}

/// Names and shapes, in the order of the flat buffer.
pub fn specs(config: &Config) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    Parameters::in_order(config, |name, shape| specs.push(TensorSpec::f32(name.to_string(), shape)));
    specs
}

/// The number of parameters: the length of a flat buffer.
pub fn count(config: &Config) -> usize {
    let mut count = 0;
    Parameters::in_order(config, |_, shape| count += shape.iter().product::<usize>());
    count
}

/// The parts of a flat buffer as named tensors; each name starts with `prefix`.
pub fn named<'a>(config: &Config, prefix: &str, mut flat: &'a mut [f32]) -> Vec<TensorMut<'a>> {
    let mut tensors = Vec::new();
    Parameters::in_order(config, |name, shape| {
        let (part, rest) = std::mem::take(&mut flat).split_at_mut(shape.iter().product());
        flat = rest;
        tensors.push(TensorMut::f32(format!("{prefix}{name}"), shape, part));
    });
    tensors
}

/// The initial parameters, a function of the sizes and the seed alone.
///
/// As in GPT-2 (Radford et al., "Language models are unsupervised multitask learners", 2019), weights are normal with a
/// standard deviation of 0.02, divided by √(2 · layers) for those that write to the residual stream.
pub fn initial(config: &Config, seed: u64) -> Vec<f32> {
    let mut flat = vec![1.0; count(config)];
    let mut random = Random::new(seed);
    let mut normal = |weights: &mut [f32], deviation: f32| {
        weights.fill_with(|| random.normal() * deviation);
    };
    let into_stream = 0.02 / (2.0 * config.layers as f32).sqrt();
    // The gains stay 1.
    let parameters = Parameters::of_mut(config, &mut flat);
    normal(parameters.wte, 0.02);
    normal(parameters.wpe, 0.02);
    for block in parameters.blocks {
        normal(block.qkv, 0.02);
        normal(block.proj, into_stream);
        normal(block.fc, 0.02);
        normal(block.out, into_stream);
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_shapes_and_parts_agree() {
        let config = Config { layers: 2, heads: 2, width: 6, context: 5, vocabulary: 7 };
        let mut flat = initial(&config, 3);
        assert_eq!(flat, initial(&config, 3));
        assert_ne!(flat, initial(&config, 4));

        let specs = specs(&config);
        assert_eq!(specs.iter().filter_map(TensorSpec::checked_elements).sum::<usize>(), flat.len());
        let named: Vec<_> = named(&config, "adam.m.", &mut flat).into_iter().map(|t| t.spec).collect();
        for (plain, prefixed) in specs.iter().zip(&named) {
            assert_eq!(
                (format!("adam.m.{}", plain.name), &plain.shape),
                (prefixed.name.clone(), &prefixed.shape)
            );
        }
        let parts = Parameters::of(&config, &flat);
        assert_eq!(
            (parts.wte.len(), parts.blocks[1].fc.len(), parts.lnf),
            (7 * 6, 24 * 6, &[1.0_f32; 6][..])
        );
    }
}
