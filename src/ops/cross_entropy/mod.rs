//! Cross-entropy fused with the output projection: `logits = x·Wᵀ`, `loss = Σ_n (log Σ_v exp logits[n,v] − logits[n, target_n]) / D`
//! over the positions that count.
//!
//! Backward: `dlogits = (softmax(logits) − onehot(target)) / D`, `dx = dlogits·W`, `dW = dlogitsᵀ·x`. The logits exist only
//! `CHUNK` rows at a time: the gradients are computed in the forward pass, while a chunk's logits are at hand (Hsu et al. 2024,
//! Liger kernels, arXiv 2410.10989), and backward only scales them. Rows that do not count cost nothing: they are left out first.
//! Saved: `dx`, `dW`. Bound by arithmetic: 6·N·H·V operations.

pub mod cases;
pub mod kernel;

use std::sync::Arc;

use num_traits::Float as _;
use rayon::prelude::*;

use super::table::Precision;
use super::{expect_differentiable, inputs, shape_error};
use crate::cpu::gemm::{MatMut, MatRef, Operand, matmul};
use crate::cpu::vectorized;
use crate::data::Batch;
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Element, Float, Recycled, Tensor};
use crate::{Error, Result, with_float, with_weights};

/// Rows whose logits exist at one time.
pub(crate) const CHUNK: usize = 256;

/// The operation; see the module.
struct CrossEntropy {
    targets: Arc<[i32]>,
    denominator: f64,
    gradients: bool,
}

/// `x` `[N, H]`, `w` `[V, H]`, `targets` `[N]` ([`Batch::IGNORE`] where nothing counts) → scalar: the sum of the counted rows'
/// losses over `denominator` (how many count in the whole accumulated batch; 0 gives 0, not NaN).
pub fn cross_entropy(tape: &mut Tape, x: &Var, w: &Var, targets: Arc<[i32]>, denominator: usize) -> Result<Var> {
    let op = CrossEntropy { targets, denominator: denominator as f64, gradients: tape.is_recording() };
    tape.apply(op, &[x, w])
}

/// `dx` and `dW` for a gradient of 1; none where the tape does not record.
type Gradients = Option<(Tensor, Tensor)>;

impl Op for CrossEntropy {
    type Saved = Gradients;

    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn forward(&self, tensors: &[&Tensor]) -> Result<(Vec<Tensor>, Self::Saved)> {
        let [x, w] = inputs("cross_entropy", tensors)?;
        let &[vocab_size, hidden] = w.dims() else {
            return Err(shape_error("cross_entropy", "w", w, "[V, H]"));
        };
        if x.shape().cols() != hidden || x.shape().rows() != self.targets.len() {
            return Err(shape_error("cross_entropy", "x", x, format!("[{}, {hidden}]", self.targets.len())));
        }
        let counted = |&id: &i32| id != Batch::IGNORE;
        if let Some(&id) = self.targets.iter().filter(|id| counted(id)).find(|&&id| id < 0 || id as usize >= vocab_size) {
            return Err(Error::TokenId { id: id.into(), vocab_size });
        }
        let rows: Vec<usize> = (0..self.targets.len()).filter(|&r| counted(&self.targets[r])).collect();
        if self.gradients {
            expect_differentiable("cross_entropy", "w", w)?;
        }
        with_weights!("cross_entropy", x.dtype(), w.dtype(), (F, W) => self.run::<F, W>(x, w, &rows))
    }

    fn backward(&self, saved: Self::Saved, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        let (dx, dw) = saved.ok_or_else(|| Error::Internal("cross_entropy: backward without gradients".into()))?;
        let seed = dy.item()?;
        with_float!("cross_entropy", dy.dtype(), F => {
            for (i, gradient) in [dx, dw].into_iter().enumerate() {
                let gradient = gradient.data::<F>()?;
                sink.write::<F>(i, |destination, accumulate| {
                    destination.par_chunks_mut(CHUNK * 64).zip(gradient.par_chunks(CHUNK * 64)).for_each(|(destination, gradient)| {
                        scale_into(destination, gradient, F::of(seed), accumulate);
                    });
                })?;
            }
            Ok(())
        })
    }
}

impl CrossEntropy {
    fn run<F: Float, W: Element + Operand<F>>(&self, x: &Tensor, w: &Tensor, rows: &[usize]) -> Result<(Vec<Tensor>, Gradients)> {
        let (hidden, vocab_size) = (w.shape().cols(), w.shape().rows());
        let (data, pitch, weight) = (x.pitched::<F>()?, x.pitch(), w.data::<W>()?);
        let w_matrix = MatRef::new(weight, vocab_size, hidden);
        let scale = F::of(if self.denominator == 0.0 { 0.0 } else { 1.0 / self.denominator });
        let mut gradients =
            self.gradients.then(|| (Recycled::<F>::zeros(x.shape().elements()), Recycled::<F>::zeros(weight.len())));
        let (mut logits, mut chunk_x) = (Recycled::<F>::stale(CHUNK * vocab_size), Recycled::<F>::stale(CHUNK * hidden));
        let mut loss = 0.0f64;
        for rows in rows.chunks(CHUNK) {
            let n = rows.len();
            for (&r, chunk) in rows.iter().zip(chunk_x.chunks_exact_mut(hidden)) {
                chunk.copy_from_slice(&data[r * pitch..][..hidden]);
            }
            let logits = &mut logits[..n * vocab_size];
            let x_matrix = MatRef::new(&chunk_x[..n * hidden], n, hidden);
            matmul(MatMut::new(logits, n, vocab_size), F::of(1.0), x_matrix, w_matrix.t(), false, true);
            let losses: Vec<f64> = logits
                .par_chunks_exact_mut(vocab_size)
                .zip(rows)
                .map(|(logits, &r)| {
                    let target = self.targets[r] as usize;
                    let at_target = logits[target];
                    let (max, sum) = exponentials(logits);
                    if self.gradients {
                        scale_in_place(logits, scale / sum);
                        logits[target] -= scale;
                    }
                    (max - at_target).f64() + sum.f64().ln()
                })
                .collect();
            loss += losses.iter().sum::<f64>();
            if let Some((dx, dw)) = &mut gradients {
                let dlogits = MatRef::new(&*logits, n, vocab_size);
                matmul(MatMut::new(dw, vocab_size, hidden), F::of(1.0), dlogits.t(), x_matrix, true, true);
                let chunk_dx = &mut chunk_x[..n * hidden];
                matmul(MatMut::new(chunk_dx, n, hidden), F::of(1.0), dlogits, w_matrix, false, true);
                for (&r, chunk) in rows.iter().zip(chunk_dx.chunks_exact(hidden)) {
                    dx[r * hidden..][..hidden].copy_from_slice(chunk);
                }
            }
        }
        let loss = if self.denominator == 0.0 { 0.0 } else { loss / self.denominator };
        let saved = match gradients {
            Some((dx, dw)) => {
                let dx = Tensor::from_buffer(x.shape(), F::into_buffer(dx))?;
                Some((dx, Tensor::from_buffer(w.shape(), F::into_buffer(dw))?))
            }
            None => None,
        };
        Ok((vec![Tensor::scalar(F::of(loss))], saved))
    }
}

vectorized! {
    /// Replaces each `x` by `exp(x − max)`, and returns the maximum and the sum.
    fn exponentials<F: Float>(x: &mut [F]) -> (F, F) {
        const LANES: usize = 32;
        let mut lanes = [F::neg_infinity(); LANES];
        for chunk in x.chunks(LANES) {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let max = lanes.iter().fold(F::neg_infinity(), |max, &x| if x > max { x } else { max });
        let mut sums = [F::of(0.0); LANES];
        for chunk in x.chunks_mut(LANES) {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *x = (*x - max).exp_lane();
                *sum += *x;
            }
        }
        (max, sums.iter().copied().sum())
    }

    fn scale_in_place<F: Float>(x: &mut [F], scale: F) {
        for x in x {
            *x *= scale;
        }
    }

    fn scale_into<F: Float>(y: &mut [F], x: &[F], scale: F, accumulate: bool) {
        if accumulate {
            for (y, &x) in y.iter_mut().zip(x) {
                *y += x * scale;
            }
        } else {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * scale;
            }
        }
    }
}

/// The formula, row by row: `x` `[N, H]`, `w` `[V, H]`; the sum over counted rows, not divided.
pub fn reference<P: Precision>(x: &[P::Number], w: &[P::Number], hidden: usize, targets: &[i32]) -> P::Number {
    let mut loss = P::Number::of(0.0);
    for (x, &target) in x.chunks_exact(hidden).zip(targets).filter(|(_, target)| **target != Batch::IGNORE) {
        let mut logits: Vec<_> = w.chunks_exact(hidden).map(|w| P::round(x.iter().zip(w).map(|(&x, &w)| x * w).sum())).collect();
        loss += reference_row::<P>(&mut logits, target as usize, P::Number::of(1.0));
    }
    loss
}

/// The loss of one row of logits `[V]`, which become its gradient times `scale`.
pub fn reference_row<P: Precision>(logits: &mut [P::Number], target: usize, scale: P::Number) -> P::Number {
    let max = logits.iter().copied().fold(P::Number::neg_infinity(), P::Number::max);
    let sum: P::Number = logits.iter().map(|&l| (l - max).exp()).sum();
    let loss = max + sum.ln() - logits[target];
    for (v, logit) in logits.iter_mut().enumerate() {
        let softmax = P::round((*logit - max).exp() / sum);
        let hot = if v == target { 1.0 } else { 0.0 };
        *logit = P::round((softmax - P::Number::of(hot)) * scale);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::table::Exact;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};

    fn targets(n: usize, vocab_size: i32) -> Arc<[i32]> {
        (0..n as i32).map(|i| if i % 5 == 3 { Batch::IGNORE } else { i * 7 % vocab_size }).collect()
    }

    #[test]
    fn equals_the_reference_over_several_chunks() {
        let (n, h, v) = (2 * CHUNK + 77, 24, 130);
        let (x, w, targets) = (random_f32([n, h], 1), random_f32([v, h], 2), targets(n, v as i32));
        let count = targets.iter().filter(|&&t| t != Batch::IGNORE).count();
        let loss = cross_entropy(&mut Tape::inference(), &x.clone().into(), &w.clone().into(), targets.clone(), count).unwrap();
        let expected = reference::<Exact>(&x.to_f64().unwrap(), &w.to_f64().unwrap(), h, &targets) / count as f64;
        assert_close(loss.value(), &[expected], 1e-6);
    }

    #[test]
    fn gradients() {
        for (n, h, v) in [(7, 3, 11), (CHUNK + 3, 2, 5)] {
            let targets = targets(n, v as i32);
            assert_gradients(&[random([n, h], 1), random([v, h], 2)], |tape, x| {
                cross_entropy(tape, &x[0], &x[1], targets.clone(), n)
            });
        }
    }

    #[test]
    fn nothing_counted_is_zero() {
        let tape = &mut Tape::recording();
        let (x, w) = (tape.input(random([3, 4], 1)), tape.input(random([5, 4], 2)));
        let loss = cross_entropy(tape, &x, &w, [Batch::IGNORE; 3].into(), 0).unwrap();
        assert_eq!(loss.value().item().unwrap(), 0.0);
        let tape = std::mem::replace(tape, Tape::inference());
        let backward = tape.backward(&loss, 1.0, &mut crate::params::Gradients::none()).unwrap();
        assert!(backward.input(&w).unwrap().to_f64().unwrap().iter().all(|&g| g == 0.0));
    }

    #[test]
    fn large_logits_do_not_overflow_and_nan_is_not_hidden() {
        let w = Tensor::new([2, 1], vec![1000.0f32, -1000.0]).unwrap();
        let loss = |x: f32| {
            let x = Tensor::new([1, 1], vec![x]).unwrap();
            cross_entropy(&mut Tape::inference(), &x.into(), &w.clone().into(), [1].into(), 1).unwrap().value().item().unwrap()
        };
        assert_eq!(loss(1.0), 2000.0);
        assert!(loss(f32::NAN).is_nan());
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_named() {
        let (x, w): (Var, Var) = (random([1, 2], 1).into(), random([3, 2], 2).into());
        let error = cross_entropy(&mut Tape::inference(), &x, &w, [3].into(), 1).unwrap_err().to_string();
        assert_eq!(error, "token id 3 is outside the vocabulary of 3 entries");
    }
}
