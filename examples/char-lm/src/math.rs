//! Plain loops over slices: everything except matrix products.
//!
//! Each public function is compiled once per instruction set (AVX-512, AVX2, NEON, …), and each call uses the best one
//! that the machine has, so that one binary is fast everywhere. No loop uses a fused multiply-add and every sum has a
//! fixed order, so all variants give the same bits.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// The number of running totals in a sum: as many as fit in the widest vector register.
const LANES: usize = 16;

/// Added to the variance in [`layer_norm`], so that a constant row causes no division by zero.
const EPSILON: f32 = 1e-5;

/// Compiles a function for each instruction set, and calls the best one that the machine has.
macro_rules! vectorized {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block) => {
        $(#[$doc])*
        $visibility fn $name($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $output)? $body
            $crate::math::best(#[inline(always)] || body($($argument),*))
        }
    };
}
pub(crate) use vectorized;

/// Runs a closure that is compiled for the best instruction set of the machine. All of it must be inlined: a function
/// that is not inlined stays compiled for the lowest instruction set. A plain `FnOnce` ensures that.
#[inline(always)]
pub(crate) fn best<R>(run: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(run)
}

/// The mean of a row, and one divided by its standard deviation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    mean: f32,
    scale: f32,
}

vectorized! {
    /// `y = (x − mean) · scale · gain` for each row of `x`, which is as long as `gain`. Keeps the moments of each row
    /// for the backward pass.
    pub fn layer_norm(x: &[f32], gain: &[f32], y: &mut [f32], moments: &mut [Moments]) {
        let width = gain.len();
        for ((x, y), kept) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(moments) {
            let mean = sum(x, x, |x, _| x) / width as f32;
            let variance = sum(x, x, |x, _| (x - mean) * (x - mean)) / width as f32;
            let scale = 1.0 / (variance + EPSILON).sqrt();
            for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                *y = (x - mean) * scale * gain;
            }
            *kept = Moments { mean, scale };
        }
    }
}

vectorized! {
    /// The backward pass of [`layer_norm`]: adds the gradients to `dx` and `dgain`. Overwrites `dy`.
    pub fn layer_norm_backward(
        x: &[f32],
        gain: &[f32],
        moments: &[Moments],
        dy: &mut [f32],
        dx: &mut [f32],
        dgain: &mut [f32],
    ) {
        let width = gain.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact_mut(width)).zip(dx.chunks_exact_mut(width));
        for (((x, dy), dx), &Moments { mean, scale }) in rows.zip(moments) {
            for (((dgain, dy), x), gain) in dgain.iter_mut().zip(&mut *dy).zip(x).zip(gain) {
                *dgain += *dy * (x - mean) * scale;
                *dy *= gain;
            }
            let along_one = sum(dy, x, |dy, _| dy) / width as f32;
            let along_x = sum(dy, x, |dy, x| dy * (x - mean) * scale) / width as f32;
            for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
                *dx += (*dy - along_one - (x - mean) * scale * along_x) * scale;
            }
        }
    }
}

vectorized! {
    /// `y = GELU(x)` in its exact form, x · Φ(x). Replaces each `x` by the slope at `x` for the backward pass, which is
    /// cheap here because Φ is known.
    pub fn gelu(x: &mut [f32], y: &mut [f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            let (below, density) = normal(*x);
            *y = *x * below;
            *x = below + *x * density;
        }
    }
}

vectorized! {
    /// `y ·= x`, element by element.
    pub fn scale_by(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y *= x;
        }
    }
}

vectorized! {
    /// `y += x`, element by element.
    pub fn add_to(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

vectorized! {
    /// Softmax of each row of a square matrix over the columns up to the diagonal; the columns beyond become 0.
    pub fn causal_softmax(scores: &mut [f32], size: usize) {
        for (index, row) in scores.chunks_exact_mut(size).enumerate() {
            let (past, future) = row.split_at_mut(index + 1);
            let highest = maximum(past);
            for score in &mut *past {
                *score = exp(*score - highest);
            }
            let share = 1.0 / sum(past, past, |weight, _| weight);
            for weight in past {
                *weight *= share;
            }
            future.fill(0.0);
        }
    }
}

vectorized! {
    /// The backward pass of [`causal_softmax`], whose result was `weights`: replaces the gradient of the weights by the
    /// gradient of the scores.
    pub fn causal_softmax_backward(weights: &[f32], gradient: &mut [f32], size: usize) {
        let rows = weights.chunks_exact(size).zip(gradient.chunks_exact_mut(size));
        for (index, (weights, gradient)) in rows.enumerate() {
            let (past, future) = gradient.split_at_mut(index + 1);
            let mean = sum(&weights[..=index], past, |weight, gradient| weight * gradient);
            for (gradient, weight) in past.iter_mut().zip(weights) {
                *gradient = weight * (*gradient - mean);
            }
            future.fill(0.0);
        }
    }
}

vectorized! {
    /// The cross-entropy of each row of logits with its target, in nats, summed over the rows. Replaces the logits by
    /// the gradient of `scale` times that sum.
    pub fn cross_entropy(logits: &mut [f32], targets: &[u8], scale: f32) -> f64 {
        let width = logits.len() / targets.len();
        let mut total = 0.0;
        for (row, &target) in logits.chunks_exact_mut(width).zip(targets) {
            let (target, highest) = (usize::from(target), maximum(row));
            let wanted = row[target] - highest;
            for logit in &mut *row {
                *logit = exp(*logit - highest);
            }
            let norm = sum(row, row, |weight, _| weight);
            total += f64::from(norm.ln() - wanted);
            for weight in &mut *row {
                *weight *= scale / norm;
            }
            row[target] -= scale;
        }
        total
    }
}

vectorized! {
    /// The Euclidean norm of a vector of any length.
    pub fn norm(values: &[f32]) -> f64 {
        // Sums of 4096 elements in f32, the total in f64.
        let squares = values.chunks(4096).map(|part| f64::from(sum(part, part, |x, y| x * y)));
        squares.sum::<f64>().sqrt()
    }
}

/// Σ `term(aᵢ, bᵢ)`, always added in the same order.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut totals = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            totals[lane] += term(a[lane], b[lane]);
        }
    }
    for ((total, &a), &b) in totals.iter_mut().zip(a_rest).zip(b_rest) {
        *total += term(a, b);
    }
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            totals[lane] += totals[lane + width];
        }
    }
    totals[0]
}

#[inline(always)]
fn maximum(values: &[f32]) -> f32 {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            highest[lane] = highest[lane].max(chunk[lane]);
        }
    }
    highest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// eˣ for `x ≤ 0`, with a relative error below 3e-7. The result is e⁻⁸⁷ for every smaller `x`, and NaN for NaN. The
/// method and the polynomial are those of Cephes' `expf` (Moshier, 1989).
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to an integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 0.0);
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    // x − n · ln 2, with ln 2 as the sum of two numbers. The first times n is exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    let power_of_two = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * r * r + r + 1.0) * power_of_two
}

/// The normal distribution: the probability below `x`, and the density at `x`. The absolute error is below 3e-7
/// (Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, formula 7.1.26).
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    /// 1 / √(2π).
    const PEAK: f32 = 0.398_942_3;
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * FRAC_1_SQRT_2 * x.abs());
    let p = 1.061_405_4;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    let tail = 0.5 * p * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, PEAK * bell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_its_stated_error_and_keeps_nan() {
        for i in 0..870_000 {
            let x = -1e-4 * i as f32;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "exp({x}) = {found}, not {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn normal_is_the_integral_of_its_density() {
        // Simpson's rule from −9; the probability below that is negligible.
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (step, mut expected) = (1e-3, 0.0);
        for i in 0..18_000 {
            let x = -9.0 + f64::from(i) * step;
            let (below, bell) = normal(x as f32);
            assert!((f64::from(below) - expected).abs() < 3e-7, "below {x}: {below}, not {expected}");
            assert!((f64::from(bell) - density(x)).abs() < 3e-7, "density at {x}: {bell}");
            expected += step / 6.0 * (density(x) + 4.0 * density(x + step / 2.0) + density(x + step));
        }
    }

    #[test]
    fn sums_of_any_length_include_every_element() {
        for count in 0..70_u16 {
            let values: Vec<f32> = (1..=count).map(f32::from).collect();
            assert_eq!(sum(&values, &values, |x, _| x), f32::from(count) * f32::from(count + 1) / 2.0);
            assert_eq!(maximum(&values), values.last().copied().unwrap_or(f32::NEG_INFINITY));
        }
    }
}
