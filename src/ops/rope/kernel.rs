//! Rotary position embedding on a device, alone or behind a norm of each head: `kernels/head_norm_rope.cu`.

use super::RopeLayout;
use crate::error::{Error, Result};
use crate::gpu::kernels::head_norm_rope::{
    HeadNormRopeBackward, HeadNormRopeForward, HeadNormRopeWeightGradient, RopeBackward, RopeForward,
};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, Slice, SliceMut};
use crate::ops::kernel_int;

/// The widest head that the kernels hold in registers.
pub const MAX_WIDTH: usize = 512;

/// The heads of q and of k, side by side in every row.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Rows, one for each token.
    pub rows: usize,
    /// Heads of q.
    pub q: usize,
    /// Heads of k behind them; may be 0.
    pub k: usize,
    /// Columns of a head, D.
    pub width: usize,
    /// How many of them turn: the last ones. Even.
    pub rotary: usize,
    /// Which columns turn together.
    pub layout: RopeLayout,
}

/// Heads to read, in rows that may have gaps.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// From the first row's first head on.
    pub from: ElementSlice<'a>,
    /// Elements from a row to the next.
    pub pitch: usize,
}

/// Heads to write, in rows that may have gaps.
#[derive(Debug, Clone, Copy)]
pub struct RowsMut<'a> {
    /// From the first row's first head on.
    pub to: ElementSliceMut<'a>,
    /// Elements from a row to the next.
    pub pitch: usize,
}

/// By which angles heads turn.
#[derive(Debug, Clone, Copy)]
pub struct Angles<'a> {
    /// [positions, rotary]: cosines, then sines, as [`RopeTable`](super::RopeTable) has them.
    pub table: Slice<'a, f32>,
    /// `[rows]`, each a row of the table.
    pub positions: Slice<'a, i32>,
}

impl Heads {
    /// Rows of the workspace of [`norm_backward`], each of 2·D floats: one for each block. The number depends on nothing else than the
    /// rows, for the order in which the weights' gradients are summed depends on it.
    pub fn partials(self) -> usize {
        const BLOCKS: usize = 264;
        const ROWS_OF_A_BLOCK: usize = 32;
        self.rows.div_ceil(ROWS_OF_A_BLOCK).clamp(1, BLOCKS)
    }

    /// The macros of these heads, for rows that begin at these elements' addresses and pitches.
    fn defines(self, rows: &[Rows<'_>]) -> Result<[(&'static str, i64); 4]> {
        let Self { width, rotary, .. } = self;
        if !(2..=MAX_WIDTH).contains(&width) || rotary == 0 || rotary % 2 != 0 || rotary > width {
            return Err(Error::device(format!("rope: {rotary} columns of heads of {width} cannot turn (at most {MAX_WIDTH})")));
        }
        let fits = |elements: usize| {
            rows.iter().all(|rows| {
                let bytes = (elements * rows.from.element().bytes()) as u64;
                rows.pitch.is_multiple_of(elements) && rows.from.view().address().is_multiple_of(bytes)
            })
        };
        let widest = [4, 2].into_iter().find(|&elements| fits(elements)).unwrap_or(1);
        let interleaved = i64::from(self.layout == RopeLayout::Interleaved);
        Ok([("HEAD_DIM", width as i64), ("ROTARY_DIM", rotary as i64), ("INTERLEAVED", interleaved), ("MAX_WIDTH", widest as i64)])
    }

    fn all(self) -> usize {
        self.q + self.k
    }

    /// Rows as the kernels count them, which number the heads of all rows.
    fn rows(self) -> Result<i32> {
        kernel_int("rope", "the number of all rows' heads", self.rows.saturating_mul(self.all()))?;
        kernel_int("rope", "the number of rows", self.rows)
    }
}

fn pitch(of: usize) -> Result<i32> {
    kernel_int("rope", "the pitch", of)
}

impl<'a> RowsMut<'a> {
    fn as_rows(self) -> Rows<'a> {
        Rows { from: self.to.as_slice(), pitch: self.pitch }
    }
}

/// `x` → `y`, turned; they may be the same rows, and then what does not turn is left alone.
pub fn forward(context: &Context, heads: Heads, y: RowsMut<'_>, x: Rows<'_>, angles: Angles<'_>) -> Result<()> {
    if heads.rows * heads.all() == 0 {
        return Ok(());
    }
    let Angles { table, positions } = angles;
    #[allow(non_snake_case)] // the kernel's names
    let (R, H) = (heads.rows()?, heads.all() as i32);
    let (y_pitch, x_pitch) = (pitch(y.pitch)?, pitch(x.pitch)?);
    let call = RopeForward { y: y.to, x: x.from, table, positions, R, H, y_pitch, x_pitch };
    context.launch(&heads.defines(&[y.as_rows(), x])?, &call)
}

/// `dy` → `dx`, turned back; they may be the same rows.
pub fn backward(context: &Context, heads: Heads, dx: RowsMut<'_>, dy: Rows<'_>, angles: Angles<'_>) -> Result<()> {
    if heads.rows * heads.all() == 0 {
        return Ok(());
    }
    let Angles { table, positions } = angles;
    #[allow(non_snake_case)]
    let (R, H) = (heads.rows()?, heads.all() as i32);
    let (dx_pitch, dy_pitch) = (pitch(dx.pitch)?, pitch(dy.pitch)?);
    let call = RopeBackward { dx: dx.to, dy: dy.from, table, positions, R, H, dx_pitch, dy_pitch };
    context.launch(&heads.defines(&[dx.as_rows(), dy])?, &call)
}

/// `x` → `y`, each head normalised, weighted by `w` (of q, of k; `[D]` each) and turned. `y` may be `x` where no backward follows.
pub fn norm_forward(
    context: &Context,
    heads: Heads,
    y: RowsMut<'_>,
    x: Rows<'_>,
    [w_q, w_k]: [ElementSlice<'_>; 2],
    angles: Angles<'_>,
    eps: f32,
) -> Result<()> {
    if heads.rows * heads.all() == 0 {
        return Ok(());
    }
    let Angles { table, positions } = angles;
    #[allow(non_snake_case)]
    let (R, H, Q) = (heads.rows()?, heads.all() as i32, heads.q as i32);
    let (y_pitch, x_pitch) = (pitch(y.pitch)?, pitch(x.pitch)?);
    let defines = heads.defines(&[y.as_rows(), x, weight(w_q), weight(w_k)])?;
    context
        .launch(&defines, &HeadNormRopeForward { y: y.to, x: x.from, w_q, w_k, table, positions, R, H, Q, y_pitch, x_pitch, eps })
}

/// A weight as rows, of which there is one.
fn weight(w: ElementSlice<'_>) -> Rows<'_> {
    Rows { from: w, pitch: 0 }
}

/// What [`norm_backward`] reads beside the gradient.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// What was normalised.
    pub x: Rows<'a>,
    /// Of q and of k, `[D]` each.
    pub w: [ElementSlice<'a>; 2],
    /// As in the forward pass.
    pub angles: Angles<'a>,
    /// As in the forward pass.
    pub eps: f32,
}

/// What [`norm_backward`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Gradients<'a> {
    /// Of the heads; may be the rows of `dy`.
    pub dx: RowsMut<'a>,
    /// Of the weights of q and of k, `[D]` each.
    pub dw: [SliceMut<'a, f32>; 2],
    /// Whether `dw` is added to what is there.
    pub accumulate: bool,
    /// Workspace, [[`Heads::partials`], 2, D].
    pub partial: SliceMut<'a, f32>,
}

/// `dy` → the gradients of the heads and of both weights.
pub fn norm_backward(context: &Context, heads: Heads, to: Gradients<'_>, dy: Rows<'_>, saved: Saved<'_>) -> Result<()> {
    let (Gradients { dx, dw: [dw_q, dw_k], accumulate, partial }, Saved { x, w: [w_q, w_k], angles, eps }) = (to, saved);
    let Angles { table, positions } = angles;
    #[allow(non_snake_case)]
    let (R, H, Q, P) = (heads.rows()?, heads.all() as i32, heads.q as i32, heads.partials() as i32);
    let (dx_pitch, dy_pitch, x_pitch) = (pitch(dx.pitch)?, pitch(dy.pitch)?, pitch(x.pitch)?);
    let defines = heads.defines(&[dx.as_rows(), dy, x, weight(w_q), weight(w_k)])?;
    #[rustfmt::skip]
    let call = HeadNormRopeBackward {
        dx: dx.to, partial, dy: dy.from, x: x.from, w_q, w_k, table, positions, R, H, Q, dx_pitch, dy_pitch, x_pitch, eps, P,
    };
    context.launch(&defines, &call)?;
    let (partial, accumulate) = (partial.as_slice(), i32::from(accumulate));
    context.launch_for(w_q.element(), &defines, &HeadNormRopeWeightGradient { dw_q, dw_k, partial, P, accumulate })
}
