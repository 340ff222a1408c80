//! The model: a GPT, forward and backward, over one flat buffer of parameters and one of gradients.
//!
//! The *residual stream* has one vector per character. Each block adds the output of attention to it, then the output
//! of a feed-forward layer. The backward pass does the same steps in reverse order, so the two are written side by
//! side. Every part of the gradient buffer is overwritten before it is added to, so its old content does not matter.

use crate::{
    attention,
    math::{self, Moments},
    matrix::{matrix, matrix_mut},
    parameters::{Block, Config, Parameters},
};

/// The memory for batches of one size. The parameters are elsewhere.
///
/// No call depends on an earlier one, so equal arguments give equal bits.
#[derive(Debug)]
pub struct Model {
    config: Config,
    /// Characters in a batch.
    rows: usize,
    /// The residual stream before each block and after the last, each `[rows, width]`.
    stream: Vec<Vec<f32>>,
    blocks: Vec<BlockMemory>,
    last: Normalized,
    /// `[rows, vocabulary]`.
    logits: Vec<f32>,
    back: Back,
}

/// What the forward pass of a block keeps for its backward pass.
#[derive(Debug)]
struct BlockMemory {
    before_attention: Normalized,
    /// `[rows, 3 · width]`.
    qkv: Vec<f32>,
    /// `[sequences, heads, context, context]`.
    weights: Vec<f32>,
    /// `[rows, width]`.
    attended: Vec<f32>,
    /// The residual stream between attention and the feed-forward layer.
    middle: Vec<f32>,
    before_hidden: Normalized,
    /// The slope of the hidden layer's activation, `[rows, 4 · width]`.
    slope: Vec<f32>,
    /// The hidden layer, `[rows, 4 · width]`.
    hidden: Vec<f32>,
}

/// The result of a layer norm, and the moments of each row.
#[derive(Debug)]
struct Normalized {
    /// `[rows, width]`.
    values: Vec<f32>,
    moments: Vec<Moments>,
}

/// Gradients of intermediate results, during the backward pass.
#[derive(Debug)]
struct Back {
    /// Of the residual stream.
    stream: Vec<f32>,
    /// Of the input of a part of a block, `[rows, width]`.
    branch: Vec<f32>,
    qkv: Vec<f32>,
    hidden: Vec<f32>,
    /// Of one head's attention weights.
    weights: Vec<f32>,
}

impl Model {
    /// A model for batches of `sequences` sequences.
    pub fn new(config: Config, sequences: usize) -> Self {
        let Config { layers, heads, width, context, vocabulary } = config;
        let rows = sequences * context;
        let zeros = |columns: usize| vec![0.0; rows * columns];
        let normalized = || Normalized { values: zeros(width), moments: vec![Moments::default(); rows] };
        let block = || BlockMemory {
            before_attention: normalized(),
            qkv: zeros(3 * width),
            weights: zeros(heads * context),
            attended: zeros(width),
            middle: zeros(width),
            before_hidden: normalized(),
            slope: zeros(4 * width),
            hidden: zeros(4 * width),
        };
        Self {
            config,
            rows,
            stream: (0..=layers).map(|_| zeros(width)).collect(),
            blocks: (0..layers).map(|_| block()).collect(),
            last: normalized(),
            logits: zeros(vocabulary),
            back: Back {
                stream: zeros(width),
                branch: zeros(width),
                qkv: zeros(3 * width),
                hidden: zeros(4 * width),
                weights: vec![0.0; context * context],
            },
        }
    }

    /// The logits of the next character, `[rows, vocabulary]`, for each character of `tokens` `[sequences, context]`.
    /// They do not depend on later characters.
    pub fn forward(&mut self, parameters: &[f32], tokens: &[u8]) -> &mut [f32] {
        assert_eq!(tokens.len(), self.rows, "characters in a batch");
        let parameters = Parameters::of(&self.config, parameters);
        embed(&self.config, &parameters, tokens, &mut self.stream[0]);
        for (index, (block, memory)) in parameters.blocks.iter().zip(&mut self.blocks).enumerate() {
            let (before, after) = self.stream.split_at_mut(index + 1);
            block_forward(&self.config, block, &before[index], memory, &mut after[0]);
        }
        self.last.fill(&self.stream[self.config.layers], parameters.lnf);
        linear(&self.last.values, parameters.wte, &mut self.logits, self.rows);
        &mut self.logits
    }

    /// The cross-entropy of the next characters, in nats, summed over the batch.
    pub fn loss(&mut self, parameters: &[f32], tokens: &[u8], next: &[u8]) -> f64 {
        math::cross_entropy(self.forward(parameters, tokens), next, 1.0)
    }

    /// Like [`loss`](Self::loss); also writes the gradient of `scale` times the loss to `gradient`.
    pub fn backward(
        &mut self,
        parameters: &[f32],
        tokens: &[u8],
        next: &[u8],
        scale: f32,
        gradient: &mut [f32],
    ) -> f64 {
        let loss = math::cross_entropy(self.forward(parameters, tokens), next, scale);
        let (dlogits, rows) = (&self.logits, self.rows);
        let parameters = Parameters::of(&self.config, parameters);
        let mut gradient = Parameters::of_mut(&self.config, gradient);

        let Back { stream: dstream, branch, .. } = &mut self.back;
        linear_backward(&self.last.values, parameters.wte, dlogits, branch, gradient.wte, rows);
        dstream.fill(0.0);
        self.last.backward(&self.stream[self.config.layers], parameters.lnf, branch, dstream, gradient.lnf);
        let blocks = parameters.blocks.iter().zip(&mut gradient.blocks).zip(&self.blocks).zip(&self.stream);
        for (((block, gradient), memory), input) in blocks.rev() {
            block_backward(&self.config, block, input, memory, &mut self.back, gradient);
        }
        embed_backward(&self.config, tokens, &self.back.stream, &mut gradient);
        loss
    }
}

/// The vector of each character plus the vector of its position.
fn embed(config: &Config, parameters: &Parameters<&[f32]>, tokens: &[u8], stream: &mut [f32]) {
    let width = config.width;
    let positions = parameters.wpe.chunks_exact(width).cycle();
    for ((stream, &token), position) in stream.chunks_exact_mut(width).zip(tokens).zip(positions) {
        let start = usize::from(token) * width;
        stream.copy_from_slice(position);
        math::add_to(stream, &parameters.wte[start..start + width]);
    }
}

/// Adds to the gradient of the token embedding, which already has the part from the logits, and sets the gradient of
/// the position embedding.
fn embed_backward(config: &Config, tokens: &[u8], dstream: &[f32], gradient: &mut Parameters<&mut [f32]>) {
    let width = config.width;
    gradient.wpe.fill(0.0);
    for (sequence, tokens) in
        dstream.chunks_exact(config.context * width).zip(tokens.chunks_exact(config.context))
    {
        math::add_to(gradient.wpe, sequence);
        for (vector, &token) in sequence.chunks_exact(width).zip(tokens) {
            let start = usize::from(token) * width;
            math::add_to(&mut gradient.wte[start..start + width], vector);
        }
    }
}

fn block_forward(
    config: &Config,
    block: &Block<&[f32]>,
    input: &[f32],
    memory: &mut BlockMemory,
    output: &mut [f32],
) {
    let rows = input.len() / config.width;

    memory.before_attention.fill(input, block.ln1);
    linear(&memory.before_attention.values, block.qkv, &mut memory.qkv, rows);
    attention::forward(config, &memory.qkv, &mut memory.weights, &mut memory.attended);
    memory.middle.copy_from_slice(input);
    linear_onto(&memory.attended, block.proj, &mut memory.middle, rows);

    memory.before_hidden.fill(&memory.middle, block.ln2);
    linear(&memory.before_hidden.values, block.fc, &mut memory.slope, rows);
    math::gelu(&mut memory.slope, &mut memory.hidden);
    output.copy_from_slice(&memory.middle);
    linear_onto(&memory.hidden, block.out, output, rows);
}

/// Replaces the gradient of the residual stream after the block by the gradient before it.
fn block_backward(
    config: &Config,
    block: &Block<&[f32]>,
    input: &[f32],
    memory: &BlockMemory,
    back: &mut Back,
    gradient: &mut Block<&mut [f32]>,
) {
    let rows = input.len() / config.width;
    let Back { stream, branch, qkv, hidden, weights } = back;

    linear_backward(&memory.hidden, block.out, stream, hidden, gradient.out, rows);
    math::scale_by(hidden, &memory.slope);
    linear_backward(&memory.before_hidden.values, block.fc, hidden, branch, gradient.fc, rows);
    memory.before_hidden.backward(&memory.middle, block.ln2, branch, stream, gradient.ln2);

    linear_backward(&memory.attended, block.proj, stream, branch, gradient.proj, rows);
    attention::backward(config, &memory.qkv, &memory.weights, branch, weights, qkv);
    linear_backward(&memory.before_attention.values, block.qkv, qkv, branch, gradient.qkv, rows);
    memory.before_attention.backward(input, block.ln1, branch, stream, gradient.ln1);
}

impl Normalized {
    fn fill(&mut self, x: &[f32], gain: &[f32]) {
        math::layer_norm(x, gain, &mut self.values, &mut self.moments);
    }

    /// Adds the gradient to `dx` and sets `dgain`. Overwrites `dy`.
    fn backward(&self, x: &[f32], gain: &[f32], dy: &mut [f32], dx: &mut [f32], dgain: &mut [f32]) {
        dgain.fill(0.0);
        math::layer_norm_backward(x, gain, &self.moments, dy, dx, dgain);
    }
}

/// `y = x · wᵀ`.
fn linear(x: &[f32], w: &[f32], y: &mut [f32], rows: usize) {
    let outputs = y.len() / rows;
    matrix_mut(y, rows).set(matrix(x, rows).times(matrix(w, outputs).t()));
}

/// `y += x · wᵀ`.
fn linear_onto(x: &[f32], w: &[f32], y: &mut [f32], rows: usize) {
    let outputs = y.len() / rows;
    matrix_mut(y, rows).accumulate(matrix(x, rows).times(matrix(w, outputs).t()));
}

/// The backward pass of [`linear`]: sets `dx` and `dw`.
fn linear_backward(x: &[f32], w: &[f32], dy: &[f32], dx: &mut [f32], dw: &mut [f32], rows: usize) {
    let outputs = dy.len() / rows;
    matrix_mut(dw, outputs).set(matrix(dy, rows).t().times(matrix(x, rows)));
    matrix_mut(dx, rows).set(matrix(dy, rows).times(matrix(w, outputs)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parameters, random::Random};

    const TINY: Config = Config { layers: 2, heads: 2, width: 16, context: 6, vocabulary: 11 };

    /// Parameters so large that every part of the model has an effect, and a batch of two sequences.
    fn example() -> (Vec<f32>, Vec<u8>, Vec<u8>) {
        let mut random = Random::new(2);
        let parameters = parameters::initial(&TINY, 1).iter().map(|p| p + 0.2 * random.normal()).collect();
        let mut tokens = || (0..2 * TINY.context).map(|_| (random.uniform() * 11.0) as u8).collect();
        (parameters, tokens(), tokens())
    }

    /// The slope of the loss along `direction`, by a finite difference of four losses. Its error is of the fourth order
    /// in the distance, and rounding to f32 is small compared with the differences.
    fn slope(model: &mut Model, parameters: &[f32], tokens: &[u8], next: &[u8], direction: &[f32]) -> f64 {
        const DISTANCE: f64 = 0.02;
        let mut at = |times: f64| {
            let moved: Vec<f32> = parameters
                .iter()
                .zip(direction)
                .map(|(p, d)| (f64::from(*p) + times * DISTANCE * f64::from(*d)) as f32)
                .collect();
            model.loss(&moved, tokens, next)
        };
        (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * DISTANCE)
    }

    #[test]
    fn every_parameters_gradient_is_the_slope_of_the_loss() {
        let (parameters, tokens, next) = example();
        let mut model = Model::new(TINY, 2);
        let mut gradient = vec![f32::NAN; parameters.len()];
        model.backward(&parameters, &tokens, &next, 1.0, &mut gradient);

        let mut random = Random::new(9);
        let mut start = 0;
        for spec in parameters::specs(&TINY) {
            let range = start..start + spec.checked_elements().unwrap();
            start = range.end;
            let norm = math::norm(&gradient[range.clone()]);
            assert!(norm > 0.05, "{} has hardly any effect: {norm}", spec.name);
            // Along the gradient itself, where the slope is its norm, and along random directions of norm 1.
            for attempt in 0..6 {
                let mut direction = vec![0.0; parameters.len()];
                match attempt {
                    0 => direction[range.clone()].copy_from_slice(&gradient[range.clone()]),
                    _ => direction[range.clone()].fill_with(|| random.normal()),
                }
                let length = math::norm(&direction) as f32;
                direction.iter_mut().for_each(|d| *d /= length);
                let expected = slope(&mut model, &parameters, &tokens, &next, &direction);
                let found: f64 =
                    gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
                let error = (found - expected).abs() / norm;
                assert!(error < 1e-3, "{}: {found} along {attempt}, not {expected}", spec.name);
            }
        }
        assert_eq!(start, parameters.len());
    }

    #[test]
    fn a_batch_gives_the_same_bits_after_any_other_batch() {
        let (parameters, tokens, next) = example();
        let mut model = Model::new(TINY, 2);
        let mut gradient = vec![f32::NAN; parameters.len()];
        let loss = model.backward(&parameters, &tokens, &next, 0.1, &mut gradient);
        let first = gradient.clone();
        model.backward(&parameters::initial(&TINY, 5), &next, &tokens, 3.0, &mut gradient);
        assert_ne!(gradient, first);
        assert_eq!(model.backward(&parameters, &tokens, &next, 0.1, &mut gradient), loss);
        assert_eq!(gradient, first);
    }

    #[test]
    fn later_characters_do_not_change_earlier_logits() {
        let (parameters, mut tokens, _) = example();
        let mut model = Model::new(TINY, 2);
        let before = model.forward(&parameters, &tokens).to_vec();
        tokens[3] = (tokens[3] + 1) % 11;
        let after = model.forward(&parameters, &tokens).to_vec();
        let same: Vec<bool> =
            before.chunks_exact(11).zip(after.chunks_exact(11)).map(|(a, b)| a == b).collect();
        assert_eq!(same, [true, true, true, false, false, false, true, true, true, true, true, true]);
    }

    #[test]
    fn a_nan_in_a_parameter_reaches_the_loss() {
        let (mut parameters, tokens, next) = example();
        parameters[0] = f32::NAN;
        let loss = Model::new(TINY, 2).loss(&parameters, &tokens, &next);
        assert!(loss.is_nan(), "{loss}");
    }
}
