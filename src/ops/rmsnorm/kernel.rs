//! RMSNorm on a device: `kernels/rmsnorm.cu`.

use crate::error::{Error, Result};
use crate::gpu::kernels::rmsnorm::{AddRmsnormBackward, AddRmsnormForward, RmsnormBackward, RmsnormForward, RmsnormWeightGradient};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, Slice, SliceMut};

/// The widest row that the kernels hold in registers.
pub const MAX_WIDTH: usize = 16384;

/// Rows and their width.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
}

impl Extents {
    /// Rows of the workspace `partial` of [`backward`], each of `width` floats: one for each block.
    ///
    /// Enough blocks for every multiprocessor of today's devices to have two; the number depends on nothing else, for the order in
    /// which the weight's gradient is summed depends on it.
    pub fn partials(self) -> usize {
        const BLOCKS: usize = 264;
        /// Fewer would not be worth what the block leaves in the workspace.
        const ROWS_OF_A_BLOCK: usize = 32;
        self.rows.div_ceil(ROWS_OF_A_BLOCK).clamp(1, BLOCKS)
    }

    fn rows(self) -> Result<i32> {
        i32::try_from(self.rows).map_err(|_| Error::device(format!("rmsnorm: {} rows, at most {} fit", self.rows, i32::MAX)))
    }

    fn defines(self) -> Result<[(&'static str, i64); 1]> {
        if !(1..=MAX_WIDTH).contains(&self.width) {
            return Err(Error::device(format!("rmsnorm: rows of {} elements, 1 to {MAX_WIDTH} can be normalised", self.width)));
        }
        Ok([("WIDTH", self.width as i64)])
    }
}

/// `x` `[R, C]`, `w` `[C]` → `y` `[R, C]`, `rstd` `[R]`.
pub fn forward(
    context: &Context,
    extents: Extents,
    y: ElementSliceMut<'_>,
    rstd: SliceMut<'_, f32>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
    eps: f32,
) -> Result<()> {
    context.launch(&extents.defines()?, &RmsnormForward { y, rstd, x, w, R: extents.rows()?, eps })
}

/// What [`add_forward`] writes.
#[derive(Debug, Clone, Copy)]
pub struct SumAndNorm<'a> {
    /// `[R, C]`, the sum.
    pub s: ElementSliceMut<'a>,
    /// `[R, C]`, its norm.
    pub y: ElementSliceMut<'a>,
    /// `[R]`
    pub rstd: SliceMut<'a, f32>,
}

/// `x` and `r` `[R, C]`, `w` `[C]` → `s = x + r`, `y` its norm.
pub fn add_forward(
    context: &Context,
    extents: Extents,
    to: SumAndNorm<'_>,
    [x, r]: [ElementSlice<'_>; 2],
    w: ElementSlice<'_>,
    eps: f32,
) -> Result<()> {
    let SumAndNorm { s, y, rstd } = to;
    context.launch(&extents.defines()?, &AddRmsnormForward { s, y, rstd, x, r, w, R: extents.rows()?, eps })
}

/// What [`backward`] reads.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// `[R, C]`, what was normalised.
    pub s: ElementSlice<'a>,
    /// `[R]`
    pub rstd: Slice<'a, f32>,
    /// `[C]`
    pub w: ElementSlice<'a>,
}

/// What [`backward`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Gradients<'a> {
    /// `[R, C]`
    pub dx: ElementSliceMut<'a>,
    /// `[C]`
    pub dw: SliceMut<'a, f32>,
    /// Whether `dw` is added to what is there.
    pub accumulate: bool,
    /// Workspace, [`Extents::partials`] rows of C.
    pub partial: SliceMut<'a, f32>,
}

/// `dy` `[R, C]`, and `ds` `[R, C]` where the sum is used elsewhere too → the gradients of x (which is that of r) and of w.
pub fn backward(
    context: &Context,
    extents: Extents,
    to: Gradients<'_>,
    dy: ElementSlice<'_>,
    ds: Option<ElementSlice<'_>>,
    saved: Saved<'_>,
) -> Result<()> {
    let (Gradients { dx, dw, accumulate, partial }, Saved { s, rstd, w }) = (to, saved);
    #[allow(non_snake_case)] // the kernel's names
    let (R, P) = (extents.rows()?, extents.partials() as i32);
    let defines = extents.defines()?;
    match ds {
        Some(ds) => context.launch(&defines, &AddRmsnormBackward { dx, partial, dy, ds, s, rstd, w, R, P })?,
        None => context.launch(&defines, &RmsnormBackward { dx, partial, dy, s, rstd, w, R, P })?,
    }
    let accumulate = i32::from(accumulate);
    context.launch_for(s.element(), &defines, &RmsnormWeightGradient { dw, partial: partial.as_slice(), P, accumulate })
}
