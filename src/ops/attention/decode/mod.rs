//! Attention to a cache on a device: keys and values of grouped queries, or the latents of multi-head latent attention.
//!
//! The formulas are those of [`attend_cached`](super::attend_cached) and [`attend_latent`](super::attend_latent), the latter
//! without the projections before and after it. Bound by reading the cache once.

pub mod cases;
pub mod kernel;

use num_traits::Float as _;

use crate::ops::table::Precision;
use crate::tensor::Float;

/// Extents of [`reference`], all of one sequence.
pub(crate) struct Sizes {
    pub new_tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub key_width: usize,
    pub value_width: usize,
    pub length: usize,
}

/// The formula for one sequence: `q` `[new_tokens, heads, key_width]`, `keys` `[length.., kv_heads, key_width]`, `values`
/// `[length.., kv_heads, value_width]` → `[new_tokens, heads, value_width]`; token t sees the first `length − new_tokens + t + 1`
/// keys. Scores and weights are rounded as a program of one kernel a formula would store them.
pub(crate) fn reference<P: Precision>(
    q: &[P::Number],
    keys: &[P::Number],
    values: &[P::Number],
    scale: f64,
    sizes: &Sizes,
) -> Vec<P::Number> {
    let &Sizes { new_tokens, heads, kv_heads, key_width, value_width, length } = sizes;
    let zero = P::Number::of(0.0);
    let mut o = Vec::with_capacity(new_tokens * heads * value_width);
    for (row, q) in q.chunks_exact(key_width).take(new_tokens * heads).enumerate() {
        let (seen, kv_head) = (length - new_tokens + row / heads + 1, row % heads / (heads / kv_heads));
        let of = |x: &[P::Number], width: usize, j: usize| x[(j * kv_heads + kv_head) * width..][..width].to_vec();
        let dot = |k: Vec<P::Number>| q.iter().zip(k).map(|(&q, k)| q * k).sum::<P::Number>();
        let scores: Vec<_> = (0..seen).map(|j| P::round(dot(of(keys, key_width, j)) * P::Number::of(scale))).collect();
        let max = scores.iter().fold(P::Number::neg_infinity(), |max, &score| max.max(score));
        let weights: Vec<_> = scores.iter().map(|&score| (score - max).exp()).collect();
        let sum: P::Number = weights.iter().copied().sum();
        let mut out = vec![zero; value_width];
        for (j, &weight) in weights.iter().enumerate() {
            let weight = P::round(weight / sum);
            out.iter_mut().zip(of(values, value_width, j)).for_each(|(o, v)| *o = *o + weight * v);
        }
        o.extend(out.into_iter().map(P::round));
    }
    o
}
