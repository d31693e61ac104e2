//! Permute: a copy of each token's row for each of its experts, in the order of the experts: `y[row] = x[token(row)]`.
//!
//! Backward: `dx[token] = Σ_j dy[row(token, j)]`, j in order. Nothing is saved. Bound by memory: 2·N·k·H elements each way.

use std::sync::Arc;

use rayon::prelude::*;

use super::Routing;
use crate::Result;
use crate::cpu::rows_per_task;
use crate::ops::{add, inputs, shape_error};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The operation; see the module.
struct Permute {
    routing: Arc<Routing>,
}

/// `x` `[.., H]` of N rows (which may have gaps) → `[N·k, H]`.
pub fn permute(tape: &mut Tape, x: &Var, routing: &Arc<Routing>) -> Result<Var> {
    tape.apply(Permute { routing: routing.clone() }, &[x])
}

impl Op for Permute {
    /// The columns, H.
    type Saved = usize;

    fn name(&self) -> &'static str {
        "permute"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, usize)> {
        let [x] = inputs("permute", x)?;
        let (routing, cols, pitch) = (&*self.routing, x.shape().cols(), x.pitch());
        if x.shape().rows() != routing.tokens() || cols == 0 {
            return Err(shape_error("permute", "x", x, format!("[.., H] with {} rows", routing.tokens())));
        }
        let tasks = rows_per_task(cols);
        let y = with_float!("permute", x.dtype(), F => {
            let x = x.pitched::<F>()?;
            Ok(Tensor::build::<F>([routing.slots(), cols], |y| {
                y.par_chunks_mut(tasks * cols).zip(routing.slot_of_row().par_chunks(tasks)).for_each(|(y, slots)| {
                    for (y, &slot) in y.chunks_exact_mut(cols).zip(slots) {
                        y.copy_from_slice(&x[slot as usize / routing.top_k() * pitch..][..cols]);
                    }
                });
            }))
        })?;
        Ok((vec![y], cols))
    }

    fn backward(&self, cols: usize, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        let (routing, tasks) = (&*self.routing, rows_per_task(cols));
        with_float!("permute", dy.dtype(), F => {
            let dy = dy.data::<F>()?;
            sink.write::<F>(0, |dx, accumulate| {
                let tokens = dx.par_chunks_mut(tasks * cols).zip(routing.row_of_slot().par_chunks(tasks * routing.top_k()));
                tokens.for_each(|(dx, rows)| {
                    for (dx, rows) in dx.chunks_exact_mut(cols).zip(rows.chunks_exact(routing.top_k())) {
                        if !accumulate {
                            dx.fill(F::of(0.0));
                        }
                        rows.iter().for_each(|&row| add::accumulate(dx, &dy[row as usize * cols..][..cols]));
                    }
                });
            })
        })
    }
}

/// The formula in plain loops: `x` `[N, H]`, `y` `[N·k, H]`.
pub fn reference<F: Float>(x: &[F], routing: &Routing, y: &mut [F]) {
    let cols = x.len() / routing.tokens();
    for (row, &slot) in routing.slot_of_row().iter().enumerate() {
        let token = slot as usize / routing.top_k();
        for c in 0..cols {
            y[row * cols + c] = x[token * cols + c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};

    #[test]
    fn equals_the_reference_also_with_gaps_between_rows() {
        for (n, h, e, k) in [(1, 1, 1, 1), (17, 5, 3, 2), (511, 33, 4, 4)] {
            let routing = Arc::new(Routing::choose(&random_f32([n, e], 1), k).unwrap());
            let x = random_f32([n, h + 2], 2).columns(1, h).unwrap();
            let y = permute(&mut Tape::inference(), &x.clone().into(), &routing).unwrap();
            assert_eq!(y.dims(), [n * k, h]);
            let mut expected = vec![0.0; n * k * h];
            reference(&x.to_f64().unwrap(), &routing, &mut expected);
            assert_close(y.value(), &expected, 0.0);
        }
    }

    #[test]
    fn gradients() {
        let routing = Arc::new(Routing::choose(&random_f32([7, 4], 1), 3).unwrap());
        assert_gradients(&[random([7, 5], 2)], |tape, v| permute(tape, &v[0], &routing));
        assert_gradients(&[random([7, 5], 2)], |tape, v| {
            let (a, b) = (permute(tape, &v[0], &routing)?, permute(tape, &v[0], &routing)?);
            add::add(tape, &a, &b)
        });
    }

    #[test]
    fn a_wrong_number_of_rows_is_named() {
        let routing = Arc::new(Routing::choose(&random_f32([7, 4], 1), 3).unwrap());
        let error = permute(&mut Tape::inference(), &random_f32([6, 5], 2).into(), &routing).unwrap_err().to_string();
        assert_eq!(error, "permute: `x` has shape [6, 5], expected [.., H] with 7 rows");
    }
}
