//! Linear map: `y = x · Wᵀ`, without bias; `W` lies as in a weights file, `[out, in]`.
//!
//! Backward: `dx = dy · W`, `dW = dyᵀ · x`. Saved: `x`, `W`. Bound by arithmetic: 2·R·K·N operations forward, twice that backward.

pub mod cases;
pub mod kernel;
pub mod tiling;

use super::{expect_differentiable, inputs, shape_error};
use crate::Result;
use crate::cpu::gemm::{MatMut, MatRef, matmul};
use crate::cpu::vectorized;
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Element, Float, Tensor};
use crate::{with_float, with_weights};

/// The operation; see the module.
struct Linear;

/// `x` `[.., K]` (rows may have gaps), `w` `[N, K]`, in x's type or, for inference, in bf16 → `[.., N]`.
pub fn linear(tape: &mut Tape, x: &Var, w: &Var) -> Result<Var> {
    tape.apply(Linear, &[x, w])
}

/// A tensor's rows as a matrix.
pub(crate) fn as_matrix<E: Element>(x: &Tensor) -> Result<MatRef<'_, E>> {
    Ok(MatRef::with_pitch(x.pitched::<E>()?, x.shape().rows(), x.shape().cols(), x.pitch()))
}

impl Op for Linear {
    type Saved = (Tensor, Tensor);

    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Self::Saved)> {
        let [x, w] = inputs("linear", x)?;
        let &[n, k] = w.dims() else {
            return Err(shape_error("linear", "w", w, "[out, in]"));
        };
        if x.shape().cols() != k {
            return Err(shape_error("linear", "x", x, format!("[.., {k}] for w {}", w.shape())));
        }
        let y = with_weights!("linear", x.dtype(), w.dtype(), (F, W) => {
            let (a, b) = (as_matrix::<F>(x)?, as_matrix::<W>(w)?);
            Ok(Tensor::build::<F>(x.shape().with_cols(n), |y| {
                matmul(MatMut::new(y, a.rows, n), F::of(1.0), a, b.t(), false, true);
            }))
        })?;
        Ok((vec![y], (x.clone(), w.clone())))
    }

    fn backward(&self, (x, w): Self::Saved, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        expect_differentiable("linear", "w", &w)?;
        with_float!("linear", dy.dtype(), F => {
            let (x, w, dy) = (as_matrix::<F>(&x)?, as_matrix::<F>(&w)?, MatRef::new(dy.data::<F>()?, x.shape().rows(), w.shape().rows()));
            if sink.wants(0) {
                sink.write::<F>(0, |dx, accumulate| matmul(MatMut::new(dx, x.rows, x.cols), F::of(1.0), dy, w, accumulate, true))?;
            }
            if sink.wants(1) {
                sink.write::<F>(1, |dw, accumulate| matmul(MatMut::new(dw, w.rows, w.cols), F::of(1.0), dy.t(), x, accumulate, true))?;
            }
            Ok(())
        })
    }
}

/// The formula in plain loops: `x` `[R, K]`, `w` `[N, K]`, `y` `[R, N]`. Each element is summed in the order of k, all elements of a
/// row side by side.
pub fn reference<F: Float>(x: &[F], w: &[F], k: usize, y: &mut [F]) {
    let n = w.len() / k;
    let w = transposed(w, k);
    for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(n)) {
        y.fill(F::of(0.0));
        for (&x, w) in x.iter().zip(w.chunks_exact(n)) {
            add_scaled(y, x, w);
        }
    }
}

vectorized! {
    fn add_scaled<F: Float>(y: &mut [F], x: F, w: &[F]) {
        for (y, &w) in y.iter_mut().zip(w) {
            *y += x * w;
        }
    }
}

/// `[R, C]` → `[C, R]`.
pub(crate) fn transposed<F: Float>(x: &[F], cols: usize) -> Vec<F> {
    (0..cols).flat_map(|c| x.iter().skip(c).step_by(cols).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_bf16, random_f32};
    use crate::params::Gradients;

    #[test]
    fn equals_the_reference() {
        for (r, k, n) in [(1, 1, 1), (17, 5, 3), (33, 64, 96)] {
            let (x, w) = (random_f32([r, k], 1), random_f32([n, k], 2));
            let y = linear(&mut Tape::inference(), &x.clone().into(), &w.clone().into()).unwrap();
            let mut expected = vec![0.0; r * n];
            reference(&x.to_f64().unwrap(), &w.to_f64().unwrap(), k, &mut expected);
            assert_close(y.value(), &expected, 1e-6);
        }
    }

    #[test]
    fn gradients() {
        assert_gradients(&[random([2, 3, 5], 1), random([4, 5], 2)], |tape, v| linear(tape, &v[0], &v[1]));
    }

    #[test]
    fn rows_with_gaps() {
        let x = random_f32([6, 9], 3);
        let narrow = x.columns(2, 5).unwrap();
        let packed = Tensor::new([6, 5], narrow.to_f64().unwrap().iter().map(|&x| x as f32).collect()).unwrap();
        let w: Var = random_f32([4, 5], 4).into();
        let tape = &mut Tape::inference();
        let (a, b) = (linear(tape, &narrow.into(), &w).unwrap(), linear(tape, &packed.into(), &w).unwrap());
        assert_eq!(a.value().to_f64().unwrap(), b.value().to_f64().unwrap());
    }

    #[test]
    fn bf16_weights_give_what_the_same_numbers_give_in_float32() {
        for (r, k, n) in [(1, 1, 1), (3, 33, 130), (17, 65, 3), (40, 64, 96)] {
            let (x, rounded) = (random_f32([r, k], 1), random_bf16([n, k], 2));
            let wide = Tensor::new([n, k], rounded.widened::<f32>().unwrap().into_owned()).unwrap();
            let tape = &mut Tape::inference();
            let (a, b) =
                (linear(tape, &x.clone().into(), &rounded.into()).unwrap(), linear(tape, &x.into(), &wide.into()).unwrap());
            assert_close(a.value(), &b.value().to_f64().unwrap(), 1e-6);
        }
    }

    #[test]
    fn bf16_weights_have_no_gradient() {
        let mut tape = Tape::recording();
        let x = tape.input(random_f32([1, 5], 1));
        let y = linear(&mut tape, &x, &random_bf16([1, 5], 2).into()).unwrap();
        let error = tape.backward(&y, 1.0, &mut Gradients::none()).err().unwrap().to_string();
        assert!(error.starts_with("linear: `w` has dtype bf16"), "{error}");
    }

    #[test]
    fn a_wrong_shape_is_named() {
        let (x, w): (Var, Var) = (random_f32([2, 3], 1).into(), random_f32([4, 5], 2).into());
        let error = linear(&mut Tape::inference(), &x, &w).unwrap_err().to_string();
        assert_eq!(error, "linear: `x` has shape [2, 3], expected [.., 5] for w [4, 5]");
    }
}
