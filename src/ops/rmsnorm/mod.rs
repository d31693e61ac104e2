//! RMSNorm: `y[r,c] = w[c] · x[r,c] · rstd[r]` with `rstd[r] = 1/√(mean_c x[r,c]² + eps)`.
//!
//! Zhang and Sennrich 2019, arXiv 1910.07467. Backward, with `x̂ = x·rstd` and `g = dy ⊙ w`:
//! `dx = rstd·(g − x̂·mean_c(g ⊙ x̂))`, `dw[c] = Σ_r dy[r,c]·x̂[r,c]`.
//! Saved: `x`, `w`, `rstd`. Bound by memory: forward 2·R·C elements, backward 3·R·C.
//!
//! The width is that of `w`: over `[.., H·D]` with `w` `[D]` each head of a row is normalised by itself (Qwen3's q and k norms).
//! [`add_rmsnorm`] fuses the residual addition before it: `s = x + r`, `y = norm(s)`, and both are outputs.

pub mod cases;
pub mod kernel;

use num_traits::Float as _;
use rayon::prelude::*;

use super::table::Precision;
use super::{expect_differentiable, expect_shape, inputs, shape_error};
use crate::Result;
use crate::cpu::{reduce, rows_per_task, vectorized};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The operation; see the module.
struct RmsNorm {
    eps: f64,
    /// Whether a residual is added first: inputs x, r, w and outputs s, y instead of x, w and y.
    residual: bool,
}

/// `x` `[.., n·D]` (rows may have gaps), `w` `[D]`, in x's type or bf16 → `[.., n·D]`, each group of D normalised.
pub fn rmsnorm(tape: &mut Tape, x: &Var, w: &Var, eps: f64) -> Result<Var> {
    tape.apply(RmsNorm { eps, residual: false }, &[x, w])
}

/// `x` and `r` `[.., D]`, `w` `[D]` → (`s = x + r`, its norm), both `[.., D]`.
pub fn add_rmsnorm(tape: &mut Tape, x: &Var, r: &Var, w: &Var, eps: f64) -> Result<(Var, Var)> {
    let mut outputs = tape.apply_many(RmsNorm { eps, residual: true }, &[x, r, w])?.into_iter();
    match (outputs.next(), outputs.next()) {
        (Some(s), Some(y)) => Ok((s, y)),
        _ => Err(crate::Error::Internal("rmsnorm: wrong number of outputs".into())),
    }
}

/// What backward needs: the normalised input, the weight, and one `rstd` a row.
struct Saved {
    x: Tensor,
    w: Tensor,
    rstd: Tensor,
}

impl Op for RmsNorm {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        "rmsnorm"
    }

    fn forward(&self, tensors: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        if self.residual {
            let [x, r, w] = inputs("rmsnorm", tensors)?;
            expect_shape("rmsnorm", "r", r, x.shape())?;
            let s = super::add::forward(x, r)?;
            let (y, saved) = self.normalise(&s, w)?;
            Ok((vec![s, y], saved))
        } else {
            let [x, w] = inputs("rmsnorm", tensors)?;
            let (y, saved) = self.normalise(x, w)?;
            Ok((vec![y], saved))
        }
    }

    fn backward(&self, saved: Saved, grads: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let (through, dy) = match grads {
            [s, y] => (s.as_ref(), y.as_ref()),
            [y] => (None, y.as_ref()),
            _ => (None, None),
        };
        let weight_input = if self.residual { 2 } else { 1 };
        let dx = match dy {
            Some(dy) => Some(saved.backward(dy, through, weight_input, sink)?),
            None => through.cloned(),
        };
        if let Some(dx) = dx {
            for input in 0..weight_input {
                sink.add(input, dx.clone())?;
            }
        }
        Ok(())
    }
}

impl RmsNorm {
    /// `x` `[.., n·D]`, `w` `[D]` → `y` in x's shape.
    fn normalise(&self, x: &Tensor, w: &Tensor) -> Result<(Tensor, Saved)> {
        let (width, cols, pitch) = (w.shape().elements(), x.shape().cols(), x.pitch());
        if w.dims().len() != 1 || width == 0 || cols % width != 0 {
            return Err(shape_error("rmsnorm", "w", w, format!("[D] where D divides the columns of x {}", x.shape())));
        }
        let (groups, tasks) = (cols / width, rows_per_task(cols));
        with_float!("rmsnorm", x.dtype(), F => {
            let (data, weight, eps) = (x.pitched::<F>()?, w.widened::<F>()?, F::of(self.eps));
            let mut rstd = vec![F::of(0.0); x.shape().rows() * groups];
            let y = Tensor::build::<F>(x.shape(), |y| {
                let rows = y.par_chunks_mut(tasks * cols).zip(rstd.par_chunks_mut(tasks * groups)).enumerate();
                rows.for_each(|(task, (y, rstd))| {
                    for (i, (y, rstd)) in y.chunks_exact_mut(cols).zip(rstd.chunks_exact_mut(groups)).enumerate() {
                        normalise_row(&data[(task * tasks + i) * pitch..][..cols], &weight, eps, y, rstd);
                    }
                });
            });
            let rstd = Tensor::new([x.shape().rows(), groups], rstd)?;
            Ok((y, Saved { x: x.clone(), w: w.clone(), rstd }))
        })
    }
}

impl Saved {
    /// Gradient of x, with `through` (the gradient that reaches the sum directly) added; the weight's goes to `sink`.
    fn backward(&self, dy: &Tensor, through: Option<&Tensor>, weight_input: usize, sink: &mut Sink) -> Result<Tensor> {
        expect_differentiable("rmsnorm", "w", &self.w)?;
        let (cols, width, pitch) = (self.x.shape().cols(), self.w.shape().elements(), self.x.pitch());
        let (groups, tasks) = (cols / width, rows_per_task(cols));
        with_float!("rmsnorm", dy.dtype(), F => {
            let (x, w, rstd, dy) = (self.x.pitched::<F>()?, self.w.data::<F>()?, self.rstd.data::<F>()?, dy.data::<F>()?);
            let through = through.map(|t| t.data::<F>()).transpose()?;
            let mut partial = vec![F::of(0.0); self.x.shape().rows().div_ceil(tasks) * width];
            let dx = Tensor::build::<F>(self.x.shape(), |dx| {
                let rows = dx.par_chunks_mut(tasks * cols).zip(partial.par_chunks_mut(width)).enumerate();
                rows.for_each(|(task, (dx, dw))| {
                    for (i, dx) in dx.chunks_exact_mut(cols).enumerate() {
                        let r = task * tasks + i;
                        let (x, dy) = (&x[r * pitch..][..cols], &dy[r * cols..][..cols]);
                        backward_row(x, w, &rstd[r * groups..][..groups], dy, dx, dw);
                        if let Some(through) = through {
                            super::add::accumulate(dx, &through[r * cols..][..cols]);
                        }
                    }
                });
            });
            sink.write::<F>(weight_input, |dw, accumulate| {
                if !accumulate {
                    dw.fill(F::of(0.0));
                }
                partial.chunks_exact(width).for_each(|partial| super::add::accumulate(dw, partial));
            })?;
            Ok(dx)
        })
    }
}

vectorized! {
    fn normalise_row<F: Float>(x: &[F], w: &[F], eps: F, y: &mut [F], rstd: &mut [F]) {
        let width = w.len();
        for ((x, y), rstd) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(rstd) {
            let mean_square = reduce(x, x, |a, b| a * b) / F::of(width as f64);
            *rstd = F::of(1.0) / (mean_square + eps).sqrt();
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y = w * (x * *rstd);
            }
        }
    }

    fn backward_row<F: Float>(x: &[F], w: &[F], rstd: &[F], dy: &[F], dx: &mut [F], dw: &mut [F]) {
        let width = w.len();
        let groups = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(rstd);
        for (((x, dy), dx), &rstd) in groups {
            for ((dx, &dy), &w) in dx.iter_mut().zip(dy).zip(w) {
                *dx = dy * w;
            }
            let mean = reduce(dx, x, |g, x| g * x) * rstd / F::of(width as f64);
            for (((dx, &x), &dy), dw) in dx.iter_mut().zip(x).zip(dy).zip(dw.iter_mut()) {
                let normalised = x * rstd;
                *dw += dy * normalised;
                *dx = rstd * (*dx - normalised * mean);
            }
        }
    }
}

/// The formula, row by row: `x` and `y` `[R, D]`, `w` `[D]`, `rstd` `[R]`.
pub fn reference<P: Precision>(x: &[P::Number], w: &[P::Number], eps: f64, y: &mut [P::Number], rstd: &mut [P::Number]) {
    let of = P::Number::of;
    for ((x, y), rstd) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())).zip(rstd) {
        let mean_square = x.iter().map(|&x| x * x).sum::<P::Number>() / of(w.len() as f64);
        *rstd = of(1.0) / (mean_square + of(eps)).sqrt();
        for c in 0..w.len() {
            y[c] = P::round(w[c] * P::round(x[c] * *rstd));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::table::Exact;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};

    #[test]
    fn equals_the_reference() {
        for (rows, cols, width) in [(1, 8, 8), (17, 96, 96), (513, 64, 16), (3, 511, 511)] {
            let (x, w) = (random_f32([rows, cols], 1), random_f32([width], 2));
            let y = rmsnorm(&mut Tape::inference(), &x.clone().into(), &w.clone().into(), 1e-5).unwrap();
            let (mut expected, mut rstd) = (vec![0.0; rows * cols], vec![0.0; rows * cols / width]);
            reference::<Exact>(&x.to_f64().unwrap(), &w.to_f64().unwrap(), 1e-5, &mut expected, &mut rstd);
            assert_close(y.value(), &expected, 1e-6);
        }
    }

    #[test]
    fn gradients() {
        assert_gradients(&[random([3, 5], 1), random([5], 2)], |tape, v| rmsnorm(tape, &v[0], &v[1], 1e-5));
        assert_gradients(&[random([2, 3, 6], 1), random([3], 2)], |tape, v| rmsnorm(tape, &v[0], &v[1], 1e-5));
    }

    #[test]
    fn gradients_of_the_fused_form() {
        let inputs = [random([3, 17], 1), random([3, 17], 3), random([17], 2)];
        assert_gradients(&inputs, |tape, v| {
            let (s, y) = add_rmsnorm(tape, &v[0], &v[1], &v[2], 1e-5)?;
            crate::ops::add::add(tape, &s, &y)
        });
        assert_gradients(&inputs, |tape, v| Ok(add_rmsnorm(tape, &v[0], &v[1], &v[2], 1e-5)?.1));
    }

    #[test]
    fn the_bits_do_not_depend_on_the_threads() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let tape = &mut Tape::recording();
                let x = tape.input(random_f32([300, 96], 1));
                let w = tape.input(random_f32([96], 2));
                let y = rmsnorm(tape, &x, &w, 1e-5).unwrap();
                let ones = Var::constant(random_f32([1, 300 * 96], 3));
                let root = crate::ops::linear::linear(tape, &y.reshape([1, 300 * 96]).unwrap(), &ones).unwrap();
                let tape = std::mem::replace(tape, Tape::inference());
                let grads = tape.backward(&root, 1.0, &mut crate::params::Gradients::none()).unwrap();
                grads.input(&w).unwrap().data::<f32>().unwrap().to_vec()
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn a_wrong_width_is_named() {
        let (x, w): (Var, Var) = (random_f32([2, 6], 1).into(), random_f32([4], 2).into());
        assert!(
            rmsnorm(&mut Tape::inference(), &x, &w, 1e-5).unwrap_err().to_string().contains("D divides the columns of x [2, 6]")
        );
    }
}
