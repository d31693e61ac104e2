//! Grouped linear map: each expert's matrix over that expert's rows, `y[r] = x[r] · W[e(r)]ᵀ`, without bias.
//!
//! Backward: `dx[r] = dy[r] · W[e(r)]`, `dW[e] = Σ_{r of e} dy[r]ᵀ · x[r]`, zero for an expert without rows. Saved: `x`, `W`.
//! Bound by arithmetic: 2·M·K·N operations forward, twice that backward, one matrix product an expert, each over all threads.

pub mod cases;
pub mod kernel;

use std::sync::Arc;

use super::Routing;
use crate::Result;
use crate::cpu::gemm::{MatMut, MatRef, matmul};
use crate::ops::linear::as_matrix;
use crate::ops::{expect_differentiable, inputs, shape_error};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::{with_float, with_weights};

/// The operation; see the module.
struct GroupedLinear {
    routing: Arc<Routing>,
}

/// `x` `[M, K]` in the order of the experts, M = N·k (rows may have gaps), `w` `[E, N, K]`, in x's type or bf16 → `[M, N]`.
pub fn grouped_linear(tape: &mut Tape, x: &Var, w: &Var, routing: &Arc<Routing>) -> Result<Var> {
    tape.apply(GroupedLinear { routing: routing.clone() }, &[x, w])
}

/// `len` rows of a matrix, from row `start` on.
fn rows<F>(matrix: MatRef<'_, F>, start: usize, len: usize) -> MatRef<'_, F> {
    MatRef { data: &matrix.data[start * matrix.row_stride..], rows: len, ..matrix }
}

impl Op for GroupedLinear {
    type Saved = (Tensor, Tensor);

    fn name(&self) -> &'static str {
        "grouped_linear"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Self::Saved)> {
        let [x, w] = inputs("grouped_linear", x)?;
        let (m, experts) = (self.routing.slots(), self.routing.experts());
        let &[e, n, k] = w.dims() else {
            return Err(shape_error("grouped_linear", "w", w, "[experts, out, in]"));
        };
        if e != experts {
            return Err(shape_error(
                "grouped_linear",
                "w",
                w,
                format!("[{experts}, out, in], as the routing has {experts} experts"),
            ));
        }
        if x.dims() != [m, k] {
            return Err(shape_error("grouped_linear", "x", x, format!("[{m}, {k}] for w {}", w.shape())));
        }
        let y = with_weights!("grouped_linear", x.dtype(), w.dtype(), (F, W) => {
            let (x, w) = (as_matrix::<F>(x)?, w.data::<W>()?);
            Ok(Tensor::build::<F>([m, n], |y| {
                for (e, group) in self.routing.ranges().enumerate().filter(|(_, group)| !group.is_empty()) {
                    let (x, w) = (rows(x, group.start, group.len()), MatRef::new(&w[e * n * k..][..n * k], n, k));
                    let y = MatMut::new(&mut y[group.start * n..group.end * n], group.len(), n);
                    matmul(y, F::of(1.0), x, w.t(), false, true);
                }
            }))
        })?;
        Ok((vec![y], (x.clone(), w.clone())))
    }

    fn backward(&self, (x, w): Self::Saved, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        expect_differentiable("grouped_linear", "w", &w)?;
        let (m, k, n) = (x.shape().rows(), x.shape().cols(), w.shape().rows() / self.routing.experts());
        with_float!("grouped_linear", dy.dtype(), F => {
            let (x, w, dy) = (as_matrix::<F>(&x)?, w.data::<F>()?, MatRef::new(dy.data::<F>()?, m, n));
            if sink.wants(0) {
                sink.write::<F>(0, |dx, accumulate| {
                    for (e, group) in self.routing.ranges().enumerate().filter(|(_, group)| !group.is_empty()) {
                        let (dy, w) = (rows(dy, group.start, group.len()), MatRef::new(&w[e * n * k..][..n * k], n, k));
                        let dx = MatMut::new(&mut dx[group.start * k..group.end * k], group.len(), k);
                        matmul(dx, F::of(1.0), dy, w, accumulate, true);
                    }
                })?;
            }
            if sink.wants(1) {
                sink.write::<F>(1, |dw, accumulate| {
                    for (group, dw) in self.routing.ranges().zip(dw.chunks_exact_mut((n * k).max(1))) {
                        if !group.is_empty() {
                            let (dy, x) = (rows(dy, group.start, group.len()), rows(x, group.start, group.len()));
                            matmul(MatMut::new(dw, n, k), F::of(1.0), dy.t(), x, accumulate, true);
                        } else if !accumulate {
                            dw.fill(F::of(0.0));
                        }
                    }
                })?;
            }
            Ok(())
        })
    }
}

/// The formula in plain loops: `x` `[M, K]`, `w` `[E, N, K]`, `y` `[M, N]`.
pub fn reference<F: Float>(x: &[F], w: &[F], routing: &Routing, y: &mut [F]) {
    let (k, n) = (x.len() / routing.slots(), y.len() / routing.slots());
    for (e, group) in routing.ranges().enumerate() {
        for r in group {
            for o in 0..n {
                y[r * n + o] = (0..k).map(|i| x[r * k + i] * w[(e * n + o) * k + i]).sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32, to_scalar};
    use crate::params::{Gradients, Layout, Params};
    use crate::tensor::DType;

    /// A routing whose tokens prefer expert `j % E` by the given counts, so that empty and full experts can be made.
    fn routing(counts: &[usize]) -> Arc<Routing> {
        let scores = counts.iter().enumerate().flat_map(|(e, &count)| {
            let mut row = vec![0.0f32; counts.len()];
            row[e] = 1.0;
            row.repeat(count)
        });
        let scores = Tensor::new([counts.iter().sum(), counts.len()], scores.collect()).unwrap();
        Arc::new(Routing::choose(&scores, 1).unwrap())
    }

    #[test]
    fn equals_the_reference() {
        for (counts, k, n) in [(&[1][..], 1, 1), (&[5, 0, 11], 7, 3), (&[0, 0, 17, 0], 33, 65), (&[130, 1, 2], 64, 96)] {
            let routing = routing(counts);
            let (m, e) = (routing.slots(), counts.len());
            let (x, w) = (random_f32([m, k + 3], 1).columns(2, k).unwrap(), random_f32([e, n, k], 2));
            let y = grouped_linear(&mut Tape::inference(), &x.clone().into(), &w.clone().into(), &routing).unwrap();
            let mut expected = vec![0.0; m * n];
            reference(&x.to_f64().unwrap(), &w.to_f64().unwrap(), &routing, &mut expected);
            assert_close(y.value(), &expected, 1e-6);
        }
    }

    #[test]
    fn gradients() {
        for counts in [&[3, 0, 4][..], &[0, 0, 5], &[1]] {
            let routing = routing(counts);
            let inputs = [random([routing.slots(), 5], 1), random([counts.len(), 3, 5], 2)];
            assert_gradients(&inputs, |tape, v| grouped_linear(tape, &v[0], &v[1], &routing));
        }
    }

    #[test]
    fn an_expert_without_tokens_is_reached_with_zeros() {
        let mut layout = Layout::default();
        let first = layout.add("experts.0", [3, 5]);
        layout.add("experts.1", [3, 5]);
        layout.add("experts.2", [3, 5]);
        let params = Params::zeros(layout.clone(), DType::F64);
        let mut gradients = Gradients::zeros(&params);
        let mut fused = Layout::default();
        let fused = fused.add("experts", [3, 3, 5]);
        assert_eq!(fused.offset(), first.offset());

        let mut tape = Tape::recording();
        let w = tape.param(&params, &fused);
        let y = grouped_linear(&mut tape, &random([6, 5], 1).into(), &w, &routing(&[2, 0, 4])).unwrap();
        let root = to_scalar(&mut tape, &y).unwrap();
        tape.backward(&root, 1.0, &mut gradients).unwrap();

        gradients.expect_all_reached().unwrap();
        let flat = gradients.flat::<f64>().unwrap();
        assert!(flat[15..30].iter().all(|&g| g == 0.0));
        assert!(flat[..15].iter().chain(&flat[30..]).all(|&g| g != 0.0));
    }

    #[test]
    fn wrong_shapes_are_named() {
        let message = |x: [usize; 2], w: &[usize]| {
            let (x, w): (Var, Var) = (random_f32(x, 1).into(), random_f32(w, 2).into());
            grouped_linear(&mut Tape::inference(), &x, &w, &routing(&[1, 2])).unwrap_err().to_string()
        };
        assert!(message([3, 5], &[6, 5]).ends_with("expected [experts, out, in]"));
        assert!(message([3, 5], &[3, 6, 5]).ends_with("as the routing has 2 experts"));
        assert!(message([4, 5], &[2, 6, 5]).ends_with("expected [3, 5] for w [2, 6, 5]"));
    }
}
