//! Combine: the weighted sum of a token's expert outputs, `out[token] = Σ_j weights[token, j] · y[row(token, j)]`, j in order.
//!
//! Backward: `dy[row(token, j)] = weights[token, j] · dout[token]`, `dweights[token, j] = ⟨dout[token], y[row(token, j)]⟩`.
//! Saved: `y`, `weights`. Bound by memory: forward (k + 1)·N·H elements, backward (3·k + 1)·N·H.

use std::sync::Arc;

use rayon::prelude::*;

use super::Routing;
use crate::Result;
use crate::cpu::{reduce, rows_per_task, vectorized};
use crate::ops::{expect_shape, inputs, shape_error};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The operation; see the module.
struct Combine {
    routing: Arc<Routing>,
}

/// `y` `[N·k, H]` in the order of the experts, `weights` `[N, k]` → `[N, H]`.
pub fn combine(tape: &mut Tape, y: &Var, weights: &Var, routing: &Arc<Routing>) -> Result<Var> {
    tape.apply(Combine { routing: routing.clone() }, &[y, weights])
}

impl Op for Combine {
    type Saved = (Tensor, Tensor);

    fn name(&self) -> &'static str {
        "combine"
    }

    fn forward(&self, tensors: &[&Tensor]) -> Result<(Vec<Tensor>, Self::Saved)> {
        let [y, weights] = inputs("combine", tensors)?;
        let (routing, cols) = (&*self.routing, y.shape().cols());
        if y.dims() != [routing.slots(), cols] || cols == 0 {
            return Err(shape_error("combine", "y", y, format!("[{}, H]", routing.slots())));
        }
        expect_shape("combine", "weights", weights, &[routing.tokens(), routing.top_k()].into())?;
        let tasks = rows_per_task(cols);
        let out = with_float!("combine", y.dtype(), F => {
            let (y, weights) = (y.data::<F>()?, weights.data::<F>()?);
            Ok(Tensor::build::<F>([routing.tokens(), cols], |out| {
                out.par_chunks_mut(tasks * cols).enumerate().for_each(|(task, out)| {
                    for (i, out) in out.chunks_exact_mut(cols).enumerate() {
                        out.fill(F::of(0.0));
                        let first = (task * tasks + i) * routing.top_k();
                        let slots = first..first + routing.top_k();
                        for (&weight, &row) in weights[slots.clone()].iter().zip(&routing.row_of_slot()[slots]) {
                            add_scaled(out, weight, &y[row as usize * cols..][..cols]);
                        }
                    }
                });
            }))
        })?;
        Ok((vec![out], (y.clone(), weights.clone())))
    }

    fn backward(&self, (y, weights): Self::Saved, dout: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dout)] = dout else { return Ok(()) };
        let (routing, cols) = (&*self.routing, y.shape().cols());
        let (k, tasks) = (routing.top_k(), rows_per_task(cols));
        with_float!("combine", dout.dtype(), F => {
            let (y, weights, dout) = (y.data::<F>()?, weights.data::<F>()?, dout.data::<F>()?);
            let token = |slot: usize| &dout[slot / k * cols..][..cols];
            if sink.wants(0) {
                sink.write::<F>(0, |dy, accumulate| {
                    dy.par_chunks_mut(tasks * cols).zip(routing.slot_of_row().par_chunks(tasks)).for_each(|(dy, slots)| {
                        for (dy, &slot) in dy.chunks_exact_mut(cols).zip(slots) {
                            if !accumulate {
                                dy.fill(F::of(0.0));
                            }
                            add_scaled(dy, weights[slot as usize], token(slot as usize));
                        }
                    });
                })?;
            }
            if sink.wants(1) {
                sink.write::<F>(1, |dweights, accumulate| {
                    dweights.par_chunks_mut(tasks).enumerate().for_each(|(task, dweights)| {
                        for (i, dweight) in dweights.iter_mut().enumerate() {
                            let slot = task * tasks + i;
                            let row = routing.row_of_slot()[slot] as usize;
                            let product = dot(token(slot), &y[row * cols..][..cols]);
                            *dweight = if accumulate { *dweight + product } else { product };
                        }
                    });
                })?;
            }
            Ok(())
        })
    }
}

vectorized! {
    /// `y += a·x`.
    fn add_scaled<F: Float>(y: &mut [F], a: F, x: &[F]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += a * x;
        }
    }

    /// ⟨a, b⟩ of two slices of one length.
    fn dot<F: Float>(a: &[F], b: &[F]) -> F {
        reduce(a, b, |a, b| a * b)
    }
}

/// The formula in plain loops: `y` `[N·k, H]`, `weights` `[N, k]`, `out` `[N, H]`.
pub fn reference<F: Float>(y: &[F], weights: &[F], routing: &Routing, out: &mut [F]) {
    let (cols, k) = (y.len() / routing.slots(), routing.top_k());
    for token in 0..routing.tokens() {
        for c in 0..cols {
            let slots = token * k..(token + 1) * k;
            out[token * cols + c] = slots.map(|slot| weights[slot] * y[routing.row_of_slot()[slot] as usize * cols + c]).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};

    #[test]
    fn equals_the_reference() {
        for (n, h, e, k) in [(1, 1, 1, 1), (17, 5, 3, 2), (511, 33, 4, 4)] {
            let routing = Arc::new(Routing::choose(&random_f32([n, e], 1), k).unwrap());
            let (y, weights) = (random_f32([n * k, h], 2), random_f32([n, k], 3));
            let out = combine(&mut Tape::inference(), &y.clone().into(), &weights.clone().into(), &routing).unwrap();
            assert_eq!(out.dims(), [n, h]);
            let mut expected = vec![0.0; n * h];
            reference(&y.to_f64().unwrap(), &weights.to_f64().unwrap(), &routing, &mut expected);
            assert_close(out.value(), &expected, 1e-6);
        }
    }

    #[test]
    fn gradients() {
        for (h, k) in [(5, 3), (37, 1)] {
            let routing = Arc::new(Routing::choose(&random_f32([7, 4], 1), k).unwrap());
            let inputs = [random([7 * k, h], 2), random([7, k], 3)];
            assert_gradients(&inputs, |tape, v| combine(tape, &v[0], &v[1], &routing));
            assert_gradients(&inputs, |tape, v| {
                let (a, b) = (combine(tape, &v[0], &v[1], &routing)?, combine(tape, &v[0], &v[1], &routing)?);
                crate::ops::add::add(tape, &a, &b)
            });
        }
    }

    #[test]
    fn weights_of_a_wrong_shape_are_named() {
        let routing = Arc::new(Routing::choose(&random_f32([7, 4], 1), 3).unwrap());
        let (y, weights): (Var, Var) = (random_f32([21, 5], 2).into(), random_f32([7, 2], 3).into());
        let error = combine(&mut Tape::inference(), &y, &weights, &routing).unwrap_err().to_string();
        assert_eq!(error, "combine: `weights` has shape [7, 2], expected [7, 3]");
    }
}
