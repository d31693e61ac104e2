//! Products of a few rows with a weight matrix on a device, for generation: [`linear`](super::linear) with what stands before and
//! after it in a block of the model. Bound by reading the weights once.

pub mod cases;
pub mod kernel;

use num_traits::Float as _;

use super::table::Precision;
use crate::tensor::Float;

/// `x` `[batch, k]`, `w` `[n, k]` → `[batch, n]`, as sums: not yet rounded.
pub(crate) fn products<P: Precision>(x: &[P::Number], w: &[P::Number], k: usize) -> Vec<P::Number> {
    let dot = |x: &[P::Number], w: &[P::Number]| x.iter().zip(w).map(|(&x, &w)| x * w).sum::<P::Number>();
    x.chunks_exact(k).flat_map(|x| w.chunks_exact(k).map(move |w| dot(x, w))).collect()
}

/// `a · σ(a) · b`, as a program of one kernel a formula would store it.
pub(crate) fn swiglu<P: Precision>(gate: P::Number, up: P::Number) -> P::Number {
    let (gate, up) = (P::round(gate), P::round(up));
    P::round(gate / (P::Number::of(1.0) + (-gate).exp()) * up)
}
