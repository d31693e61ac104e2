//! Heads whose columns have two parts (a query's part without position and its rotary part, a key's part and its value): the two
//! parts of every head as tensors of their own, and the way back.
//!
//! A row of [`join_heads`] is `a_0 ‖ b_0 ‖ a_1 ‖ b_1 ‖ ..`; one `b` may serve all heads. [`split_heads`] is its inverse, and each is the
//! other's backward; a shared `b` gets the sum over the heads, in their order. Saved: nothing. Bound by memory: 2·R·C elements.

use rayon::prelude::*;

use super::add::accumulate;
use super::{expect_shape, inputs, shape_error};
use crate::cpu::rows_per_task;
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Tensor};
use crate::{Error, Result, with_float};

/// `x` `[.., heads·(a+b)]` (rows may have gaps), each head's a columns before its b, → `[.., heads·a]` and `[.., heads·b]`, where
/// `widths` is `[a, b]`.
///
/// An error where the columns are not these, or a number is 0.
pub fn split_heads(tape: &mut Tape, x: &Var, heads: usize, widths: [usize; 2]) -> Result<[Var; 2]> {
    let outputs = tape.apply_many(SplitHeads { heads, widths }, &[x])?;
    outputs.try_into().map_err(|_| Error::Internal("split_heads: wrong number of outputs".into()))
}

/// `a` `[.., heads·A]` and `b` `[.., b_heads·B]` (rows of both may have gaps) → `[.., heads·(A+B)]`, each head's columns of a before
/// those of b. `b_heads` is `heads`, or 1: every head gets the same b.
///
/// An error where the two differ in more than their columns, or these are no multiples of their heads, or a number is 0.
pub fn join_heads(tape: &mut Tape, a: &Var, b: &Var, heads: usize, b_heads: usize) -> Result<Var> {
    tape.apply(JoinHeads { heads, b_heads }, &[a, b])
}

/// Where the columns of one part lie: those of head h in row r begin at `r·pitch + start + h·step`.
#[derive(Clone, Copy)]
struct Place {
    pitch: usize,
    start: usize,
    step: usize,
}

impl Place {
    /// The parts of every head side by side, in rows `pitch` apart.
    fn joined([a, b]: [usize; 2], pitch: usize) -> [Self; 2] {
        [0, a].map(|start| Self { pitch, start, step: a + b })
    }

    /// One part by itself, of `heads` heads of `width` columns, in rows `pitch` apart; a single head serves all that ask for one.
    fn alone(heads: usize, width: usize, pitch: usize) -> Self {
        Self { pitch, start: 0, step: if heads == 1 { 0 } else { width } }
    }
}

/// Copies `width` columns of each of `heads` heads from `x` to `y`, or adds them to what is there. Heads that share their place in
/// `y` are summed, in their order.
fn transfer<F: Float>(x: &[F], from: Place, y: &mut [F], to: Place, [heads, width]: [usize; 2], add: bool) {
    y.par_chunks_exact_mut(to.pitch).with_min_len(rows_per_task(to.pitch)).enumerate().for_each(|(r, y)| {
        for h in 0..heads {
            let x = &x[r * from.pitch + from.start + h * from.step..][..width];
            let y = &mut y[to.start + h * to.step..][..width];
            if add || (h > 0 && to.step == 0) {
                accumulate(y, x);
            } else {
                y.copy_from_slice(x);
            }
        }
    });
}

/// The operation; see the module.
struct SplitHeads {
    heads: usize,
    widths: [usize; 2],
}

impl Op for SplitHeads {
    type Saved = ();

    fn name(&self) -> &'static str {
        "split_heads"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, ())> {
        let [x] = inputs("split_heads", x)?;
        let (heads, [a, b], cols) = (self.heads, self.widths, x.shape().cols());
        let positive = heads > 0 && a > 0 && b > 0;
        if !positive || !cols.is_multiple_of(heads) || (cols / heads).checked_sub(a) != Some(b) {
            return Err(shape_error("split_heads", "x", x, format!("[.., {heads}·({a} + {b})], none of these 0")));
        }
        let parts = with_float!("split_heads", x.dtype(), F => {
            let data = x.pitched::<F>()?;
            let parts = Place::joined(self.widths, x.pitch()).into_iter().zip(self.widths);
            Ok(parts.map(|(place, width)| {
                Tensor::build::<F>(x.shape().with_cols(heads * width), |y| {
                    transfer(data, place, y, Place::alone(heads, width, heads * width), [heads, width], false);
                })
            }).collect())
        })?;
        Ok((parts, ()))
    }

    fn backward(&self, (): (), dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let Some(dtype) = dy.iter().flatten().map(Tensor::dtype).next() else { return Ok(()) };
        let (heads, [a, b]) = (self.heads, self.widths);
        with_float!("split_heads", dtype, F => {
            let parts = dy.iter().map(|part| part.as_ref().map(|part| part.data::<F>()).transpose()).collect::<Result<Vec<_>>>()?;
            sink.write::<F>(0, |dx, accumulate| {
                if !accumulate && parts.iter().any(Option::is_none) {
                    dx.fill(F::of(0.0));
                }
                let places = Place::joined(self.widths, heads * (a + b)).into_iter().zip(self.widths);
                for (part, (place, width)) in parts.into_iter().zip(places) {
                    if let Some(part) = part {
                        transfer(part, Place::alone(heads, width, heads * width), dx, place, [heads, width], accumulate);
                    }
                }
            })
        })
    }
}

/// The operation; see the module.
struct JoinHeads {
    heads: usize,
    b_heads: usize,
}

impl Op for JoinHeads {
    /// The parts' widths.
    type Saved = [usize; 2];

    fn name(&self) -> &'static str {
        "join_heads"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Self::Saved)> {
        let [a, b] = inputs("join_heads", x)?;
        let (heads, b_heads) = (self.heads, self.b_heads);
        if b_heads != 1 && b_heads != heads {
            return Err(Error::config(format!("join_heads: `b` has {b_heads} heads, expected 1 or the {heads} of `a`")));
        }
        for (argument, part, heads) in [("a", a, heads), ("b", b, b_heads)] {
            let cols = part.shape().cols();
            if cols == 0 || !cols.is_multiple_of(heads) {
                return Err(shape_error("join_heads", argument, part, format!("[.., {heads}·n], neither of these 0")));
            }
        }
        expect_shape("join_heads", "b", b, &a.shape().with_cols(b.shape().cols()))?;
        let widths = [a.shape().cols() / heads, b.shape().cols() / b_heads];
        let cols = heads * (widths[0] + widths[1]);
        let y = with_float!("join_heads", a.dtype(), F => {
            let parts = [(a.pitched::<F>()?, a.pitch(), heads), (b.pitched::<F>()?, b.pitch(), b_heads)];
            Ok(Tensor::build::<F>(a.shape().with_cols(cols), |y| {
                for (((x, pitch, part_heads), width), place) in parts.into_iter().zip(widths).zip(Place::joined(widths, cols)) {
                    transfer(x, Place::alone(part_heads, width, pitch), y, place, [heads, width], false);
                }
            }))
        })?;
        Ok((vec![y], widths))
    }

    fn backward(&self, widths: Self::Saved, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        let heads = self.heads;
        with_float!("join_heads", dy.dtype(), F => {
            let (data, places) = (dy.data::<F>()?, Place::joined(widths, heads * (widths[0] + widths[1])));
            for (i, part_heads) in [heads, self.b_heads].into_iter().enumerate() {
                let (width, place) = (widths[i], places[i]);
                sink.write::<F>(i, |dx, accumulate| {
                    let alone = Place::alone(part_heads, width, part_heads * width);
                    transfer(data, place, dx, alone, [heads, width], accumulate);
                })?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add::add;
    use crate::ops::split::split;
    use crate::ops::testing::{assert_gradients, random, random_f32};

    /// Columns `h·step + start + i` of every row, for i in 0..width and every head.
    fn pick(x: &Tensor, heads: usize, start: usize, step: usize, width: usize) -> Vec<f64> {
        let (data, cols) = (x.to_f64().unwrap(), x.shape().cols());
        let columns = (0..heads).flat_map(|h| (0..width).map(move |i| h * step + start + i));
        data.chunks_exact(cols).flat_map(|row| columns.clone().map(|c| row[c])).collect()
    }

    #[test]
    fn each_head_gives_its_columns_to_the_parts() {
        for (rows, heads, a, b) in [(1, 1, 1, 1), (6, 3, 2, 4), (700, 4, 16, 8)] {
            let x = random_f32([rows, heads * (a + b) + 3], 1).columns(2, heads * (a + b)).unwrap();
            let [y_a, y_b] = split_heads(&mut Tape::inference(), &x.clone().into(), heads, [a, b]).unwrap();
            assert_eq!((y_a.dims(), y_b.dims()), ([rows, heads * a].as_slice(), [rows, heads * b].as_slice()));
            assert_eq!(y_a.value().to_f64().unwrap(), pick(&x, heads, 0, a + b, a));
            assert_eq!(y_b.value().to_f64().unwrap(), pick(&x, heads, a, a + b, b));
            let joined = join_heads(&mut Tape::inference(), &y_a, &y_b, heads, heads).unwrap();
            assert_eq!(joined.value().to_f64().unwrap(), x.to_f64().unwrap());
        }
    }

    #[test]
    fn one_part_serves_all_heads() {
        let x = random_f32([2, 5, 14], 1);
        let (a, b) = (x.columns(0, 9).unwrap(), x.columns(10, 4).unwrap());
        let y = join_heads(&mut Tape::inference(), &a.clone().into(), &b.clone().into(), 3, 1).unwrap();
        assert_eq!(y.dims(), [2, 5, 21]);
        assert_eq!(pick(y.value(), 3, 0, 7, 3), a.to_f64().unwrap());
        for h in 0..3 {
            assert_eq!(pick(y.value(), 1, 7 * h + 3, 0, 4), b.to_f64().unwrap());
        }
    }

    #[test]
    fn gradients_of_the_parts_also_where_one_is_unused() {
        assert_gradients(&[random([2, 3, 11], 1)], |tape, v| {
            let [_, x] = split(tape, &v[0], [1, 10])?;
            let [a, _] = split_heads(tape, &x, 2, [3, 2])?;
            let [c, b] = split_heads(tape, &x, 2, [2, 3])?;
            let [_, d] = split_heads(tape, &x, 1, [4, 6])?;
            let sum = add(tape, &a, &b)?;
            let sum = add(tape, &sum, &d)?;
            join_heads(tape, &sum, &c, 2, 2)
        });
    }

    #[test]
    fn gradients_of_joining() {
        for b_heads in [1, 3] {
            assert_gradients(&[random([2, 2, 7], 1), random([2, 2, 2 * b_heads], 2)], |tape, v| {
                let [a, _] = split(tape, &v[0], [6, 1])?;
                let once = join_heads(tape, &a, &v[1], 3, b_heads)?;
                let again = join_heads(tape, &a, &v[1], 3, b_heads)?;
                let product = crate::ops::gated::gated(tape, &again.reshape([4, 12])?, crate::ops::gated::Activation::Silu)?;
                join_heads(tape, &once.reshape([4, 12])?, &product, 3, 3)
            });
        }
    }

    #[test]
    fn a_wrong_shape_is_named() {
        let tape = &mut Tape::inference();
        let x: Var = random_f32([2, 12], 1).into();
        for (heads, widths) in [(0, [3, 3]), (5, [1, 1]), (2, [3, 4]), (2, [6, 0]), (2, [0, 6]), (2, [7, usize::MAX])] {
            let error = split_heads(tape, &x, heads, widths).unwrap_err().to_string();
            let [a, b] = widths;
            assert_eq!(error, format!("split_heads: `x` has shape [2, 12], expected [.., {heads}·({a} + {b})], none of these 0"));
        }
        let mut join =
            |b: [usize; 2], heads, b_heads| join_heads(tape, &x, &random_f32(b, 2).into(), heads, b_heads).unwrap_err().to_string();
        assert!(join([2, 4], 4, 2).contains("`b` has 2 heads, expected 1 or the 4 of `a`"));
        assert!(join([2, 4], 0, 1).contains("`a` has shape [2, 12], expected [.., 0·n]"));
        assert!(join([2, 4], 5, 1).contains("`a` has shape [2, 12], expected [.., 5·n]"));
        assert!(join([2, 5], 4, 4).contains("`b` has shape [2, 5], expected [.., 4·n]"));
        assert!(join([2, 0], 4, 1).contains("`b` has shape [2, 0], expected [.., 1·n]"));
        assert!(join([3, 4], 4, 1).contains("`b` has shape [3, 4], expected [2, 4]"));
    }
}
