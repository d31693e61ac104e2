//! Sum of two tensors of one shape: the residual connection where nothing is fused with it.
//!
//! Backward: `da = db = dy`, passed on without a copy. Bound by memory: 3·R·C elements.

pub mod cases;
pub mod kernel;

use rayon::prelude::*;

use super::{expect_shape, inputs};
use crate::Result;
use crate::cpu::{rows_per_task, vectorized};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The operation; see the module.
struct Add;

/// `a` + `b`, both `[.., C]`; rows may have gaps.
pub fn add(tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
    tape.apply(Add, &[a, b])
}

impl Op for Add {
    type Saved = ();

    fn name(&self) -> &'static str {
        "add"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, ())> {
        let [a, b] = inputs("add", x)?;
        expect_shape("add", "b", b, a.shape())?;
        Ok((vec![forward(a, b)?], ()))
    }

    fn backward(&self, (): (), dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        sink.add(0, dy.clone())?;
        sink.add(1, dy.clone())
    }
}

/// `a + b` off the tape.
pub(crate) fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let cols = a.shape().cols();
    let tasks = rows_per_task(cols);
    with_float!("add", a.dtype(), F => {
        let (da, db) = (a.pitched::<F>()?, b.pitched::<F>()?);
        Ok(Tensor::build::<F>(a.shape(), |y| {
            y.par_chunks_mut(tasks * cols.max(1)).enumerate().for_each(|(task, y)| {
                for (i, y) in y.chunks_exact_mut(cols).enumerate() {
                    let r = task * tasks + i;
                    sum(&da[r * a.pitch()..][..cols], &db[r * b.pitch()..][..cols], y);
                }
            });
        }))
    })
}

vectorized! {
    /// `y += x`.
    pub(crate) fn accumulate<F: Float>(y: &mut [F], x: &[F]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    fn sum<F: Float>(a: &[F], b: &[F], y: &mut [F]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_gradients, random};

    #[test]
    fn gradients() {
        assert_gradients(&[random([3, 5], 1), random([3, 5], 2)], |tape, v| add(tape, &v[0], &v[1]));
        assert_gradients(&[random([3, 5], 1)], |tape, v| add(tape, &v[0], &v[0]));
    }
}
