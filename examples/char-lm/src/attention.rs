//! Causal self-attention, forward and backward: each character takes a weighted sum over itself and the earlier
//! characters.
//!
//! `qkv` is `[rows, 3 · width]`, one row per character: queries, keys and values side by side, and in each of them the
//! heads side by side. So a head of a sequence is a range of columns in a range of rows, and nothing is copied.

use std::ops::Range;

use crate::{
    math,
    matrix::{matrix, matrix_mut},
    parameters::Config,
};

/// Fills the attention weights, `weights` `[sequences, heads, context, context]`, and the weighted sums of the values,
/// `attended` `[rows, width]`.
pub fn forward(config: &Config, qkv: &[f32], weights: &mut [f32], attended: &mut [f32]) {
    let Config { heads, width, context, .. } = *config;
    let sequences = qkv
        .chunks_exact(context * 3 * width)
        .zip(weights.chunks_exact_mut(heads * context * context))
        .zip(attended.chunks_exact_mut(context * width));
    for ((qkv, weights), attended) in sequences {
        let qkv = matrix(qkv, context);
        for (head, weights) in weights.chunks_exact_mut(context * context).enumerate() {
            let [query, key, value] = columns(config, head);
            let scores = qkv.columns(query.clone()).times(qkv.columns(key).t());
            matrix_mut(weights, context).set(scores.scaled(scale(config)));
            math::causal_softmax(weights, context);
            let attended_head = matrix(weights, context).times(qkv.columns(value));
            matrix_mut(attended, context).columns(query).set(attended_head);
        }
    }
}

/// Fills `dqkv` from `dattended`. `dweights` is scratch memory for one head, `[context, context]`.
pub fn backward(
    config: &Config,
    qkv: &[f32],
    weights: &[f32],
    dattended: &[f32],
    dweights: &mut [f32],
    dqkv: &mut [f32],
) {
    let Config { heads, width, context, .. } = *config;
    let sequences = qkv
        .chunks_exact(context * 3 * width)
        .zip(weights.chunks_exact(heads * context * context))
        .zip(dattended.chunks_exact(context * width))
        .zip(dqkv.chunks_exact_mut(context * 3 * width));
    for (((qkv, weights), dattended), dqkv) in sequences {
        let qkv = matrix(qkv, context);
        for (head, weights) in weights.chunks_exact(context * context).enumerate() {
            let [query, key, value] = columns(config, head);
            let dattended_head = matrix(dattended, context).columns(query.clone());
            matrix_mut(dqkv, context)
                .columns(value.clone())
                .set(matrix(weights, context).t().times(dattended_head));
            matrix_mut(dweights, context).set(dattended_head.times(qkv.columns(value).t()));
            math::causal_softmax_backward(weights, dweights, context);
            let dscores = matrix(dweights, context);
            let dquery = dscores.times(qkv.columns(key.clone())).scaled(scale(config));
            let dkey = dscores.t().times(qkv.columns(query.clone())).scaled(scale(config));
            matrix_mut(dqkv, context).columns(query).set(dquery);
            matrix_mut(dqkv, context).columns(key).set(dkey);
        }
    }
}

/// The columns of a head's queries, keys and values.
fn columns(config: &Config, head: usize) -> [Range<usize>; 3] {
    let size = config.width / config.heads;
    [0, 1, 2].map(|part| part * config.width + head * size).map(|start| start..start + size)
}

/// The factor that keeps scores independent of the head's width.
fn scale(config: &Config) -> f32 {
    1.0 / ((config.width / config.heads) as f32).sqrt()
}
