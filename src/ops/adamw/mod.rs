//! AdamW over all parameters at once, with the global norm that gradients are clipped by.
//!
//! Loshchilov and Hutter 2019, arXiv 1711.05101, with the constants' meaning of PyTorch: with gradient g (already scaled by the
//! clip factor), `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
//! `p ← p·(1 − lr·λ) − lr · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + eps)`. Bound by memory: 7 elements a parameter.
//! Not on the tape: nothing is differentiated through an update.

pub mod cases;
pub mod kernel;

use rayon::prelude::*;

use crate::cpu::vectorized;
use crate::tensor::Float;

/// The settings of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// λ, of the decoupled decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Elements of one parallel task.
const TASK: usize = 32 * 1024;

/// The four equally long arrays of an update: parameters, gradients, first and second moments.
pub struct State<'a, F> {
    /// Parameters.
    pub params: &'a mut [F],
    /// Their gradients.
    pub grads: &'a [F],
    /// First moments.
    pub m: &'a mut [F],
    /// Second moments.
    pub v: &'a mut [F],
}

/// What one update multiplies by, in the arrays' type.
#[derive(Clone, Copy)]
struct Factors<F> {
    grad_scale: F,
    decay: F,
    beta1: F,
    beta2: F,
    step_size: F,
    v_scale: F,
    eps: F,
}

impl AdamW {
    /// Update number `step` (from 1) with gradients scaled by `grad_scale`; `decayed` says whether λ applies to these parameters.
    ///
    /// Returns whether every updated parameter is finite.
    #[must_use]
    pub fn update<F: Float>(&self, state: State<'_, F>, step: u64, lr: f64, grad_scale: f64, decayed: bool) -> bool {
        let factors = self.factors::<F>(step, lr, grad_scale, decayed);
        let State { params, grads, m, v } = state;
        let tasks = params.par_chunks_mut(TASK).zip(grads.par_chunks(TASK)).zip(m.par_chunks_mut(TASK).zip(v.par_chunks_mut(TASK)));
        tasks.map(|((params, grads), (m, v))| update_slice(params, grads, m, v, factors)).reduce(|| true, |a, b| a & b)
    }

    fn factors<F: Float>(&self, step: u64, lr: f64, grad_scale: f64, decayed: bool) -> Factors<F> {
        let [beta1, beta2] = self.betas;
        let corrected = |beta: f64| 1.0 - beta.powf(step as f64);
        Factors {
            grad_scale: F::of(grad_scale),
            decay: F::of(if decayed { 1.0 - lr * self.weight_decay } else { 1.0 }),
            beta1: F::of(beta1),
            beta2: F::of(beta2),
            step_size: F::of(lr / corrected(beta1)),
            v_scale: F::of(1.0 / corrected(beta2).sqrt()),
            eps: F::of(self.eps),
        }
    }
}

/// The L2 norm of all gradients together, in f64; the order of the sum depends on nothing but the length.
pub fn global_norm<F: Float>(grads: &[F]) -> f64 {
    let partial: Vec<f64> = grads.par_chunks(TASK).map(|grads| sum_of_squares(grads)).collect();
    partial.iter().sum::<f64>().sqrt()
}

/// The factor that brings gradients of this norm down to `max_norm`: `min(1, max_norm / (norm + 1e-6))`; 1 where `max_norm` is 0.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

vectorized! {
    /// Returns whether every updated parameter is finite.
    fn update_slice<F: Float>(params: &mut [F], grads: &[F], m: &mut [F], v: &mut [F], f: Factors<F>) -> bool {
        let one = F::of(1.0);
        let mut finite = true;
        for (((p, &g), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
            let g = g * f.grad_scale;
            *m = f.beta1 * *m + (one - f.beta1) * g;
            *v = f.beta2 * *v + (one - f.beta2) * g * g;
            *p = *p * f.decay - f.step_size * *m / (v.sqrt() * f.v_scale + f.eps);
            finite &= p.abs() < F::infinity();
        }
        finite
    }

    fn sum_of_squares<F: Float>(x: &[F]) -> f64 {
        const LANES: usize = 16;
        let mut lanes = [0.0f64; LANES];
        for chunk in x.chunks(LANES) {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                let x = x.f64();
                *lane += x * x;
            }
        }
        lanes.iter().sum()
    }
}

/// The formula for one parameter with gradient `g` (already scaled), in f64: returns p, m and v after update number `step`.
pub fn reference(settings: &AdamW, [p, m, v]: [f64; 3], g: f64, step: u64, lr: f64) -> [f64; 3] {
    let [beta1, beta2] = settings.betas;
    let (m, v) = (beta1 * m + (1.0 - beta1) * g, beta2 * v + (1.0 - beta2) * g * g);
    let (m_hat, v_hat) = (m / (1.0 - beta1.powf(step as f64)), v / (1.0 - beta2.powf(step as f64)));
    [p * (1.0 - lr * settings.weight_decay) - lr * m_hat / (v_hat.sqrt() + settings.eps), m, v]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random_f32};
    use crate::tensor::Tensor;

    #[test]
    fn equals_the_reference_over_several_steps() {
        let n = TASK + 17;
        let settings = AdamW { weight_decay: 0.1, ..AdamW::default() };
        let mut p = random_f32([n], 1).data::<f32>().unwrap().to_vec();
        let mut expected: Vec<[f64; 3]> = p.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        for step in 1..=5 {
            let g = random_f32([n], 10 + step).data::<f32>().unwrap().to_vec();
            assert!(settings.update(State { params: &mut p, grads: &g, m: &mut m, v: &mut v }, step, 0.01, 0.5, true));
            for (e, &g) in expected.iter_mut().zip(&g) {
                *e = reference(&settings, *e, 0.5 * f64::from(g), step, 0.01);
            }
        }
        let expected: Vec<f64> = expected.iter().map(|e| e[0]).collect();
        assert_close(&Tensor::new([n], p).unwrap(), &expected, 1e-6);
    }

    #[test]
    fn decay_is_left_out_where_not_asked() {
        let (mut p, mut m, mut v) = ([2.0f64], [0.0], [0.0]);
        let state = State { params: &mut p, grads: &[0.0], m: &mut m, v: &mut v };
        assert!(AdamW::default().update(state, 1, 0.1, 1.0, false));
        assert_eq!(p, [2.0]);
    }

    #[test]
    fn an_update_that_overflows_is_told() {
        for place in [0, TASK, 2 * TASK - 1] {
            let n = 2 * TASK;
            let (mut p, mut g, mut m, mut v) = (vec![1.0f32; n], vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            g[place] = -1.0;
            let state = State { params: &mut p, grads: &g, m: &mut m, v: &mut v };
            assert!(!AdamW::default().update(state, 1, 1e39, 1.0, false), "{place}");
        }
    }

    #[test]
    fn norm_and_clip() {
        let x = random_f32([3 * TASK + 5], 3);
        let expected = x.to_f64().unwrap().iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((global_norm(x.data::<f32>().unwrap()) / expected - 1.0).abs() < 1e-12);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
    }
}
