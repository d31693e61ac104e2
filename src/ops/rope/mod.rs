//! Rotary position embedding: the pair `(a, b)` of columns number i, at position t, turns by the angle `φ = t·θ_i`:
//! `(a·cos φ − b·sin φ, b·cos φ + a·sin φ)`.
//!
//! Su et al. 2021, arXiv 2104.09864. Backward is the transpose: the same with `−sin φ`. Saved: the shape.
//! Bound by memory: 2·R·C elements each way.

pub mod cases;
mod frequencies;
pub mod kernel;
mod scaling;

use std::sync::Arc;

use rayon::prelude::*;

use super::table::Precision;
use super::{inputs, shape_error};
use crate::cpu::{rows_per_task, vectorized};
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{Float, Shape, Tensor};
use crate::{Error, Result, with_float};

pub use frequencies::{Frequencies, RopeTable};
pub use scaling::{Llama3, RopeScaling, Yarn, YarnForm};

/// Which columns of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// i and i + D/2 (`rotate_half`): Llama, Qwen, MiniMind.
    Halves,
    /// 2i and 2i + 1: the original paper, MLA decoders.
    Interleaved,
}

/// The position of each row.
#[derive(Debug, Clone)]
pub enum Positions {
    /// Row r is at `start + r mod seq_len`.
    Consecutive {
        /// Position of the first row of each sequence.
        start: usize,
        /// Rows of one sequence, T.
        seq_len: usize,
    },
    /// Row r is at element r; none may be negative.
    Explicit(Arc<[i32]>),
}

/// The operation; see the module.
struct Rope {
    table: RopeTable,
    positions: Positions,
    layout: RopeLayout,
    head_width: usize,
}

/// `x` `[.., n·D]` (rows may have gaps), n heads of the table's D columns → the same shape, without gaps.
///
/// An error where the columns are no multiple of D, the positions do not fit the rows, or one is beyond the table.
pub fn rope(tape: &mut Tape, x: &Var, table: &RopeTable, positions: Positions, layout: RopeLayout) -> Result<Var> {
    rope_tail(tape, x, table, positions, layout, table.frequencies().head_dim())
}

/// The same for heads of `head_width` columns, of which the last D turn and the others stay (queries and keys of latent attention).
///
/// An error also where a head has fewer than D columns.
pub fn rope_tail(
    tape: &mut Tape,
    x: &Var,
    table: &RopeTable,
    positions: Positions,
    layout: RopeLayout,
    head_width: usize,
) -> Result<Var> {
    tape.apply(Rope { table: table.clone(), positions, layout, head_width }, &[x])
}

impl Op for Rope {
    type Saved = Shape;

    fn name(&self) -> &'static str {
        "rope"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Shape)> {
        let [x] = inputs("rope", x)?;
        Ok((vec![self.rotate(x, 1.0)?], x.shape().clone()))
    }

    fn backward(&self, shape: Shape, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        sink.add(0, self.rotate(&dy.reshape(shape)?, -1.0)?)
    }
}

impl Rope {
    /// Turns each row by its angles times `direction` (1 or −1).
    fn rotate(&self, x: &Tensor, direction: f64) -> Result<Tensor> {
        let (dim, cols, pitch) = (self.table.frequencies().head_dim(), x.shape().cols(), x.pitch());
        if self.head_width < dim {
            return Err(Error::config(format!("rope: heads of {} columns cannot turn {dim}", self.head_width)));
        }
        if !cols.is_multiple_of(self.head_width) {
            return Err(shape_error("rope", "x", x, format!("[.., n·{}]", self.head_width)));
        }
        let table = self.table.rows(x.dtype(), self.positions.count(x)?)?;
        let tasks = rows_per_task(cols);
        with_float!("rope", x.dtype(), F => {
            let (x_data, table) = (x.pitched::<F>()?, table.data::<F>()?);
            Ok(Tensor::build::<F>(x.shape(), |y| {
                y.par_chunks_mut(tasks * cols.max(1)).enumerate().for_each(|(task, y)| {
                    for (i, y) in y.chunks_exact_mut(cols).enumerate() {
                        let r = task * tasks + i;
                        let angles = &table[self.positions.at(r) * dim..][..dim];
                        let x = &x_data[r * pitch..][..cols];
                        match self.layout {
                            RopeLayout::Halves => rotate_halves(x, self.head_width, angles, F::of(direction), y),
                            RopeLayout::Interleaved => rotate_pairs(x, self.head_width, angles, F::of(direction), y),
                        }
                    }
                });
            }))
        })
    }
}

impl Positions {
    /// The position of row `r`, after [`Positions::count`] has accepted the rows.
    fn at(&self, r: usize) -> usize {
        match self {
            Self::Consecutive { start, seq_len } => start + r % seq_len,
            Self::Explicit(positions) => positions[r] as usize,
        }
    }

    /// One more than the largest position of x's rows.
    fn count(&self, x: &Tensor) -> Result<usize> {
        let rows = x.shape().rows();
        match self {
            Self::Consecutive { start, seq_len } => {
                if *seq_len == 0 || !rows.is_multiple_of(*seq_len) {
                    return Err(shape_error("rope", "x", x, format!("rows that are a multiple of the sequence length {seq_len}")));
                }
                Ok(start + seq_len)
            }
            Self::Explicit(positions) => {
                if positions.len() != rows {
                    return Err(shape_error("rope", "x", x, format!("{} rows, one for each position", positions.len())));
                }
                if let Some(negative) = positions.iter().find(|&&t| t < 0) {
                    return Err(Error::config(format!("rope: position {negative} is negative")));
                }
                Ok(positions.iter().max().map_or(0, |&t| t as usize + 1))
            }
        }
    }
}

vectorized! {
    /// Every head of `width` columns of one row; `angles` are D/2 cosines and D/2 sines.
    fn rotate_halves<F: Float>(x: &[F], width: usize, angles: &[F], direction: F, y: &mut [F]) {
        let (still, half) = (width - angles.len(), angles.len() / 2);
        let (cos, sin) = angles.split_at(half);
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            y[..still].copy_from_slice(&x[..still]);
            let ((a, b), (y_a, y_b)) = (x[still..].split_at(half), y[still..].split_at_mut(half));
            for i in 0..half {
                let sin = sin[i] * direction;
                y_a[i] = a[i] * cos[i] - b[i] * sin;
                y_b[i] = b[i] * cos[i] + a[i] * sin;
            }
        }
    }

    /// The same where the columns of a pair are neighbours.
    fn rotate_pairs<F: Float>(x: &[F], width: usize, angles: &[F], direction: F, y: &mut [F]) {
        let (still, half) = (width - angles.len(), angles.len() / 2);
        let (cos, sin) = angles.split_at(half);
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            y[..still].copy_from_slice(&x[..still]);
            let pairs = x[still..].chunks_exact(2).zip(y[still..].chunks_exact_mut(2));
            for (((x, y), &cos), &sin) in pairs.zip(cos).zip(sin) {
                let sin = sin * direction;
                y[0] = x[0] * cos - x[1] * sin;
                y[1] = x[1] * cos + x[0] * sin;
            }
        }
    }
}

/// The formula: one head `x` `[D]`, turned by angles of which there are D/2 cosines and D/2 sines.
pub fn reference<P: Precision>(
    x: &[P::Number],
    (cosines, sines): (&[P::Number], &[P::Number]),
    layout: RopeLayout,
    y: &mut [P::Number],
) {
    for (i, (&cos, &sin)) in cosines.iter().zip(sines).enumerate() {
        let (a, b) = match layout {
            RopeLayout::Halves => (i, i + cosines.len()),
            RopeLayout::Interleaved => (2 * i, 2 * i + 1),
        };
        y[a] = P::round(x[a] * cos - x[b] * sin);
        y[b] = P::round(x[b] * cos + x[a] * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::table::Exact;
    use crate::ops::testing::{assert_close, assert_gradients, random, random_f32};

    const LAYOUTS: [RopeLayout; 2] = [RopeLayout::Halves, RopeLayout::Interleaved];

    fn table(dim: usize) -> RopeTable {
        let frequencies = Frequencies::new(dim, 1e4, 600, RopeScaling::Default).unwrap();
        RopeTable::new(Frequencies { attention_factor: 1.25, ..frequencies }, 600)
    }

    /// One head at position `t`, by the reference.
    fn turned(x: &[f64], t: usize, frequencies: &Frequencies, layout: RopeLayout, y: &mut [f64]) {
        let angles = frequencies.inv_freq.iter().map(|theta| f64::from(t as f32 * theta));
        let scaled = |x: f64| x * frequencies.attention_factor;
        let (cosines, sines): (Vec<f64>, Vec<f64>) = angles.map(|angle| (scaled(angle.cos()), scaled(angle.sin()))).unzip();
        reference::<Exact>(x, (&cosines, &sines), layout, y);
    }

    fn expected(x: &Tensor, table: &RopeTable, layout: RopeLayout, position: impl Fn(usize) -> usize) -> Vec<f64> {
        let (dim, cols) = (table.frequencies().head_dim(), x.shape().cols());
        let mut y = vec![0.0; x.shape().elements()];
        let heads = x.to_f64().unwrap();
        for (i, (x, y)) in heads.chunks_exact(dim).zip(y.chunks_exact_mut(dim)).enumerate() {
            turned(x, position(i * dim / cols), table.frequencies(), layout, y);
        }
        y
    }

    #[test]
    fn equals_the_reference() {
        for (b, t, n, dim) in [(1, 1, 1, 2), (3, 17, 3, 6), (2, 513, 2, 64), (2, 5, 4, 96)] {
            for layout in LAYOUTS {
                let (x, table) = (random_f32([b * t, n * dim + 5], 1).columns(3, n * dim).unwrap(), table(dim));
                let positions = Positions::Consecutive { start: 7, seq_len: t };
                let y = rope(&mut Tape::inference(), &x.clone().into(), &table, positions, layout).unwrap();
                assert_close(y.value(), &expected(&x, &table, layout, |r| 7 + r % t), 1e-6);
            }
        }
    }

    #[test]
    fn explicit_positions() {
        let (x, table, positions) = (random_f32([4, 12], 1), table(6), [3, 0, 599, 3]);
        let y = |positions: &[i32]| {
            rope(&mut Tape::inference(), &x.clone().into(), &table, Positions::Explicit(positions.into()), RopeLayout::Halves)
        };
        let y_of_all = y(&positions).unwrap();
        assert_close(y_of_all.value(), &expected(&x, &table, RopeLayout::Halves, |r| positions[r] as usize), 1e-6);
        assert!(y(&[3, 0, 600, 3]).unwrap_err().to_string().contains("position 600 is outside"));
        assert!(y(&[3, 0, -1, 3]).unwrap_err().to_string().contains("position -1 is negative"));
        assert!(y(&[3, 0, 1]).unwrap_err().to_string().contains("3 rows"));
    }

    #[test]
    fn gradients() {
        for layout in LAYOUTS {
            assert_gradients(&[random([6, 18], 1)], |tape, v| {
                rope(tape, &v[0], &table(6), Positions::Consecutive { start: 2, seq_len: 3 }, layout)
            });
            assert_gradients(&[random([2, 3, 5], 1)], |tape, v| {
                let [_, x] = crate::ops::split::split(tape, &v[0], [1, 4])?;
                rope(tape, &x, &table(4), Positions::Explicit([5, 1, 0, 9, 9, 2].into()), layout)
            });
        }
    }

    #[test]
    fn only_the_tail_of_a_head_turns() {
        for layout in LAYOUTS {
            let (x, table) = (random_f32([10, 3 * 11 + 1], 1).columns(1, 33).unwrap(), table(6));
            let positions = Positions::Consecutive { start: 4, seq_len: 5 };
            let y = rope_tail(&mut Tape::inference(), &x.clone().into(), &table, positions, layout, 11).unwrap();
            let mut expected = x.to_f64().unwrap();
            for (i, head) in expected.chunks_exact_mut(11).enumerate() {
                let tail = head[5..].to_vec();
                turned(&tail, 4 + i / 3 % 5, table.frequencies(), layout, &mut head[5..]);
            }
            assert_close(y.value(), &expected, 1e-6);
            assert_gradients(&[random([3, 10], 1)], |tape, v| {
                rope_tail(tape, &v[0], &self::table(4), Positions::Explicit([5, 1, 9].into()), layout, 5)
            });
        }
    }

    /// What makes it a position embedding: the product of a rotated query and key depends on their distance alone.
    #[test]
    fn products_depend_on_the_distance_alone() {
        let table = RopeTable::new(Frequencies::new(16, 1e4, 600, RopeScaling::Default).unwrap(), 600);
        let (q, k) = (random([1, 16], 1), random([1, 16], 2));
        for layout in LAYOUTS {
            let turned = |x: &Tensor, t: i32| {
                let y = rope(&mut Tape::inference(), &x.clone().into(), &table, Positions::Explicit([t].into()), layout);
                y.unwrap().value().to_f64().unwrap()
            };
            let product = |t: i32, s: i32| turned(&q, t).iter().zip(turned(&k, s)).map(|(a, b)| a * b).sum::<f64>();
            assert!((product(9, 4) - product(505, 500)).abs() < 1e-4);
            assert!((product(9, 4) - product(9, 5)).abs() > 1e-2);
        }
    }

    #[test]
    fn a_wrong_shape_is_named() {
        let apply = |cols, seq_len| {
            let positions = Positions::Consecutive { start: 0, seq_len };
            rope(&mut Tape::inference(), &random_f32([6, cols], 1).into(), &table(4), positions, RopeLayout::Halves)
        };
        assert!(apply(8, 3).is_ok());
        assert!(apply(6, 3).unwrap_err().to_string().contains("[.., n·4]"));
        assert!(apply(8, 4).unwrap_err().to_string().contains("sequence length 4"));
        assert!(apply(8, 0).unwrap_err().to_string().contains("sequence length 0"));
        let tail = |head_width| {
            let (x, positions) = (random_f32([6, 12], 1).into(), Positions::Consecutive { start: 0, seq_len: 3 });
            rope_tail(&mut Tape::inference(), &x, &table(4), positions, RopeLayout::Halves, head_width)
        };
        assert!(tail(5).unwrap_err().to_string().contains("`x` has shape [6, 12], expected [.., n·5]"));
        assert_eq!(tail(3).unwrap_err().to_string(), "rope: heads of 3 columns cannot turn 4");
    }
}
