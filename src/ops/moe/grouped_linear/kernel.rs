//! The experts' linear maps on a device: `kernels/grouped_matmul.cu`.

use crate::error::{Error, Result};
use crate::gpu::kernels::Call;
use crate::gpu::kernels::grouped_matmul::{
    GroupedMatmulBackwardInput, GroupedMatmulBackwardWeight, GroupedMatmulForward, GroupedMatmulSwigluBackward,
    GroupedMatmulSwigluForward,
};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, ElementType, Slice, SliceMut};
use crate::ops::linear::kernel::{Gated, shared};
use crate::ops::linear::tiling::{Layout, Tiling};

const OP: &str = "grouped_linear";

/// S rows in the order of E experts, each through its expert's weight [N, K].
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Rows of x and y.
    pub rows: usize,
    /// Experts.
    pub experts: usize,
    /// Columns of y, rows of a weight.
    pub n: usize,
    /// Columns of x and of a weight.
    pub k: usize,
}

/// The experts' rows, cut into tiles on the device.
#[derive(Debug, Clone, Copy)]
pub struct Tiles<'a> {
    /// [[`max_tiles`], 4]: expert, first row, number of rows (none in tiles that are not needed), and nothing.
    pub list: Slice<'a, i32>,
    /// The most rows of a tile: [`tile_rows`].
    pub rows: usize,
}

/// Rows of a tile for this many rows and experts: large ones where experts have enough to fill them.
pub fn tile_rows(rows: usize, experts: usize) -> usize {
    if rows >= experts * 256 { 128 } else { 64 }
}

/// Tiles that there are at most, however the rows are spread.
pub fn max_tiles(rows: usize, experts: usize, tile_rows: usize) -> usize {
    rows / tile_rows + experts
}

/// `x` [S, K], `w` [E, N, K] → `y[r] = x[r]·W[e(r)]ᵀ` [S, N].
///
/// # Errors
/// A matrix that its memory does not hold; what the device cannot run.
pub fn forward(
    context: &Context,
    extents: Extents,
    y: ElementSliceMut<'_>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
    tiles: Tiles<'_>,
) -> Result<()> {
    let Extents { rows, experts, n, k } = extents;
    let layout = packed(w.element(), [("y", y.as_slice(), rows, n), ("x", x, rows, k), ("w", w, experts * n, k)])?;
    let (tiling, max_tiles) = tiles.tiling(context, extents, n, w.element(), &layout)?;
    #[allow(non_snake_case)] // the kernel's names
    let [max_tiles, N, K] = layout.ints([max_tiles, n, k])?;
    launch(context, [rows, n], tiling, &GroupedMatmulForward { y, x, w, tiles: tiles.list, max_tiles, N, K })
}

/// `x` [S, K], `w` [E, 2·N, K], of each expert the gates' rows before the ups' → `g ‖ u = x·W[e]ᵀ` and `h = silu(g)·u`.
///
/// # Errors
/// As [`forward`]'s.
pub fn swiglu_forward(
    context: &Context,
    extents: Extents,
    to: Gated<'_>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
    tiles: Tiles<'_>,
) -> Result<()> {
    let (Extents { rows, experts, n, k }, Gated { h, gate_up }) = (extents, to);
    let outputs = [("h", h.as_slice(), rows, n), ("gate_up", gate_up.as_slice(), rows, 2 * n)];
    let [h_rows, gate_up_rows] = outputs;
    let layout = packed(w.element(), [h_rows, gate_up_rows, ("x", x, rows, k), ("w", w, experts * 2 * n, k)])?;
    let (tiling, max_tiles) = tiles.tiling(context, extents, 2 * n, w.element(), &layout)?;
    #[allow(non_snake_case)]
    let [max_tiles, I, K] = layout.ints([max_tiles, n, k])?;
    launch(context, [rows, n], tiling, &GroupedMatmulSwigluForward { h, gate_up, x, w, tiles: tiles.list, max_tiles, I, K })
}

/// `dy` [S, N], `w` [E, N, K] → `dx[r] = dy[r]·W[e(r)]` [S, K].
///
/// # Errors
/// As [`forward`]'s.
pub fn backward_input(
    context: &Context,
    extents: Extents,
    dx: ElementSliceMut<'_>,
    dy: ElementSlice<'_>,
    w: ElementSlice<'_>,
    tiles: Tiles<'_>,
) -> Result<()> {
    let Extents { rows, experts, n, k } = extents;
    let layout = packed(w.element(), [("dx", dx.as_slice(), rows, k), ("dy", dy, rows, n), ("w", w, experts * n, k)])?;
    let (tiling, max_tiles) = tiles.tiling(context, extents, k, w.element(), &layout)?;
    #[allow(non_snake_case)]
    let [max_tiles, N, K] = layout.ints([max_tiles, n, k])?;
    launch(context, [rows, k], tiling, &GroupedMatmulBackwardInput { dx, dy, w, tiles: tiles.list, max_tiles, N, K })
}

/// Through `y = h·W[e]ᵀ` and `h = silu(g)·u`: `dy` [S, N], `w` [E, N, K], `gate_up` (g, then u) [S, 2·K] → `d_gate_up` likewise.
///
/// # Errors
/// As [`forward`]'s.
pub fn swiglu_backward(
    context: &Context,
    extents: Extents,
    d_gate_up: ElementSliceMut<'_>,
    dy: ElementSlice<'_>,
    w: ElementSlice<'_>,
    gate_up: ElementSlice<'_>,
    tiles: Tiles<'_>,
) -> Result<()> {
    let Extents { rows, experts, n, k } = extents;
    let wide = [("d_gate_up", d_gate_up.as_slice(), rows, 2 * k), ("gate_up", gate_up, rows, 2 * k)];
    let [d_gate_up_rows, gate_up_rows] = wide;
    let layout = packed(w.element(), [d_gate_up_rows, gate_up_rows, ("dy", dy, rows, n), ("w", w, experts * n, k)])?;
    let (tiling, max_tiles) = tiles.tiling(context, extents, k, w.element(), &layout)?;
    #[allow(non_snake_case)]
    let [max_tiles, N, I] = layout.ints([max_tiles, n, k])?;
    launch(
        context,
        [rows, k],
        tiling,
        &GroupedMatmulSwigluBackward { d_gate_up, dy, w, gate_up, tiles: tiles.list, max_tiles, N, I },
    )
}

/// `dy` [S, N], `x` [S, K], `offsets` [E + 1], where each expert's rows begin → `dw[e] = Σ_{r of e} dy[r]ᵀ·x[r]` [E, N, K], added to
/// what is there where `accumulate`; an expert without rows adds nothing.
///
/// # Errors
/// As [`forward`]'s.
pub fn backward_weight(
    context: &Context,
    extents: Extents,
    dw: SliceMut<'_, f32>,
    accumulate: bool,
    dy: ElementSlice<'_>,
    x: ElementSlice<'_>,
    offsets: Slice<'_, i32>,
) -> Result<()> {
    let Extents { rows, experts, n, k } = extents;
    let mut layout = packed(x.element(), [("dy", dy, rows, n), ("x", x, rows, k)])?;
    layout.add("dw", dw.view(), ElementType::F32, [experts * n, k], k)?;
    if offsets.len() <= experts {
        return Err(Error::device(format!("{OP}: `offsets` has {} elements, {experts} experts take one more", offsets.len())));
    }
    let tiling = Tiling::shared([n, k], x.element(), layout.aligned(), shared(context));
    let accumulate = i32::from(accumulate);
    #[allow(non_snake_case)]
    let [E, N, K] = layout.ints([experts, n, k])?;
    launch(context, [experts * n, k], tiling, &GroupedMatmulBackwardWeight { dw, dy, x, offsets, E, N, K, accumulate })
}

impl Tiles<'_> {
    /// Tiles of C of as many rows, and how many tiles of rows are listed.
    fn tiling(
        self,
        context: &Context,
        extents: Extents,
        columns: usize,
        element: ElementType,
        layout: &Layout,
    ) -> Result<(Tiling, usize)> {
        let max_tiles = max_tiles(extents.rows, extents.experts, self.rows.max(1));
        if self.list.len() < max_tiles * 4 {
            return Err(Error::device(format!("{OP}: a list of {} numbers, {max_tiles} tiles take four each", self.list.len())));
        }
        let tiling = Tiling::of_height(self.rows, [max_tiles, columns], element, layout.aligned(), shared(context))?;
        Ok((tiling, max_tiles))
    }
}

/// The layout of matrices without gaps, each by its name, rows and columns.
fn packed<const N: usize>(element: ElementType, matrices: [(&'static str, ElementSlice<'_>, usize, usize); N]) -> Result<Layout> {
    let mut layout = Layout::new(OP);
    for (name, matrix, rows, cols) in matrices {
        layout.add(name, matrix.view(), element, [rows, cols], cols)?;
    }
    Ok(layout)
}

/// Nothing is launched for a matrix without elements.
fn launch<C: Call>(context: &Context, c: [usize; 2], tiling: Tiling, call: &C) -> Result<()> {
    if c.contains(&0) { Ok(()) } else { context.launch(&tiling.defines(), call) }
}
