//! Split: ranges of the columns of one tensor as tensors of their own, without copying (q, k and v of one fused projection).
//!
//! Backward: the ranges' gradients side by side.

use rayon::prelude::*;

use super::{inputs, shape_error};
use crate::Result;
use crate::cpu::rows_per_task;
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The operation; see the module.
struct Split {
    widths: Vec<usize>,
}

/// `x` `[.., C]` → one window `[.., w]` for each of `widths`, whose sum is C.
pub fn split<const N: usize>(tape: &mut Tape, x: &Var, widths: [usize; N]) -> Result<[Var; N]> {
    let outputs = tape.apply_many(Split { widths: widths.to_vec() }, &[x])?;
    outputs.try_into().map_err(|_| crate::Error::Internal("split: wrong number of outputs".into()))
}

impl Op for Split {
    type Saved = ();

    fn name(&self) -> &'static str {
        "split"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, ())> {
        let [x] = inputs("split", x)?;
        let total: usize = self.widths.iter().sum();
        if total != x.shape().cols() {
            return Err(shape_error("split", "x", x, format!("[.., {total}]")));
        }
        let mut start = 0;
        let windows = self.widths.iter().map(|&width| {
            start += width;
            x.columns(start - width, width)
        });
        Ok((windows.collect::<Result<_>>()?, ()))
    }

    fn backward(&self, (): (), dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let Some(dtype) = dy.iter().flatten().map(Tensor::dtype).next() else { return Ok(()) };
        let cols: usize = self.widths.iter().sum();
        with_float!("split", dtype, F => {
            let parts = dy.iter().map(|part| part.as_ref().map(|part| part.data::<F>()).transpose()).collect::<Result<Vec<_>>>()?;
            sink.write::<F>(0, |dx, accumulate| {
                dx.par_chunks_exact_mut(cols).with_min_len(rows_per_task(cols)).enumerate().for_each(|(r, row)| {
                    let mut rest = row;
                    for (&width, part) in self.widths.iter().zip(&parts) {
                        let (dx, tail) = rest.split_at_mut(width);
                        rest = tail;
                        match part {
                            Some(part) if accumulate => dx.iter_mut().zip(&part[r * width..]).for_each(|(dx, &d)| *dx += d),
                            Some(part) => dx.copy_from_slice(&part[r * width..][..width]),
                            None if accumulate => {}
                            None => dx.fill(F::of(0.0)),
                        }
                    }
                });
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add::add;
    use crate::ops::testing::{assert_gradients, random};

    #[test]
    fn gradients_also_where_a_part_is_unused() {
        assert_gradients(&[random([3, 7], 1)], |tape, v| {
            let [a, _, c] = split(tape, &v[0], [3, 1, 3])?;
            let [d, ..] = split(tape, &v[0], [3, 4])?;
            let sum = add(tape, &a, &c)?;
            add(tape, &sum, &d)
        });
    }
}
