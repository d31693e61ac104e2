//! Linear maps on a device: `kernels/matmul.cu` and, fused with a gated activation, `kernels/matmul_swiglu.cu`.

use super::tiling::{Layout, Tiling};
use crate::Result;
use crate::gpu::kernels::Call;
use crate::gpu::kernels::matmul::{
    MatmulAddPartials, MatmulBackwardInput, MatmulBackwardWeight, MatmulForward, MatmulForwardToFloat,
};
use crate::gpu::kernels::matmul_swiglu::{MatmulSwigluBackward, MatmulSwigluForward};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, ElementType, Slice, SliceMut};

const OP: &str = "linear";

/// M rows through a weight [N, K], of any size; fast where rows of every matrix begin at multiples of 16 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Rows of x and y.
    pub m: usize,
    /// Columns of y, rows of the weight.
    pub n: usize,
    /// Columns of x and of the weight.
    pub k: usize,
}

/// A matrix whose rows lie `pitch` elements apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<T> {
    /// Its memory, from the first element on.
    pub at: T,
    /// From one row to the next, in elements.
    pub pitch: usize,
}

/// `x` [M, K], `w` [N, K] → `y = x·Wᵀ` [M, N], with `residual` [M, N] added where there is one; that may be `y` itself.
///
/// # Errors
/// A matrix that its memory does not hold; what the device cannot run.
pub fn forward(
    context: &Context,
    extents: Extents,
    y: Rows<ElementSliceMut<'_>>,
    x: Rows<ElementSlice<'_>>,
    w: ElementSlice<'_>,
    residual: Option<Rows<ElementSlice<'_>>>,
) -> Result<()> {
    let Extents { m, n, k } = extents;
    let element = w.element();
    let mut layout = Layout::new(OP);
    layout.add("y", y.at.as_slice().view(), element, [m, n], y.pitch)?;
    layout.add("x", x.at.view(), element, [m, k], x.pitch)?;
    layout.add("w", w.view(), element, [n, k], k)?;
    if let Some(r) = residual {
        layout.add("residual", r.at.view(), element, [m, n], r.pitch)?;
    }
    let add = i32::from(residual.is_some());
    let residual = residual.unwrap_or(Rows { at: y.at.as_slice(), pitch: y.pitch });
    let [y_pitch, x_pitch, residual_pitch] = layout.ints([y.pitch, x.pitch, residual.pitch])?;
    #[allow(non_snake_case)] // the kernel's names
    let [M, N, K] = layout.ints([m, n, k])?;
    let call = MatmulForward { y: y.at, x: x.at, w, residual: residual.at, M, N, K, y_pitch, x_pitch, residual_pitch, add };
    launch(context, [m, n], Tiling::new([m, n], element, layout.aligned(), shared(context)), &call)
}

/// The same with `y` and `residual` in f32: logits, and a residual stream in f32.
///
/// # Errors
/// As [`forward`]'s.
pub fn forward_to_float(
    context: &Context,
    extents: Extents,
    y: Rows<SliceMut<'_, f32>>,
    x: Rows<ElementSlice<'_>>,
    w: ElementSlice<'_>,
    residual: Option<Rows<Slice<'_, f32>>>,
) -> Result<()> {
    let Extents { m, n, k } = extents;
    let element = w.element();
    let mut layout = Layout::new(OP);
    layout.add("y", y.at.view(), ElementType::F32, [m, n], y.pitch)?;
    layout.add("x", x.at.view(), element, [m, k], x.pitch)?;
    layout.add("w", w.view(), element, [n, k], k)?;
    if let Some(r) = residual {
        layout.add("residual", r.at.view(), ElementType::F32, [m, n], r.pitch)?;
    }
    let add = i32::from(residual.is_some());
    let residual = residual.unwrap_or(Rows { at: y.at.as_slice(), pitch: y.pitch });
    let [y_pitch, x_pitch, residual_pitch] = layout.ints([y.pitch, x.pitch, residual.pitch])?;
    #[allow(non_snake_case)]
    let [M, N, K] = layout.ints([m, n, k])?;
    let call = MatmulForwardToFloat { y: y.at, x: x.at, w, residual: residual.at, M, N, K, y_pitch, x_pitch, residual_pitch, add };
    launch(context, [m, n], Tiling::new([m, n], element, layout.aligned(), shared(context)), &call)
}

/// What [`swiglu_forward`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Gated<'a> {
    /// `silu(g)·u` [M, N].
    pub h: ElementSliceMut<'a>,
    /// g, then u: [M, 2·N], for backward.
    pub gate_up: ElementSliceMut<'a>,
}

/// `x` [M, K], `w` [2·N, K], the gates' rows before the ups' → `g ‖ u = x·Wᵀ` and `h = silu(g)·u`.
///
/// # Errors
/// As [`forward`]'s.
pub fn swiglu_forward(
    context: &Context,
    extents: Extents,
    to: Gated<'_>,
    x: Rows<ElementSlice<'_>>,
    w: ElementSlice<'_>,
) -> Result<()> {
    let (Extents { m, n, k }, Gated { h, gate_up }) = (extents, to);
    let element = w.element();
    let mut layout = Layout::new(OP);
    layout.add("h", h.as_slice().view(), element, [m, n], n)?;
    layout.add("gate_up", gate_up.as_slice().view(), element, [m, 2 * n], 2 * n)?;
    layout.add("x", x.at.view(), element, [m, k], x.pitch)?;
    layout.add("w", w.view(), element, [2 * n, k], k)?;
    #[allow(non_snake_case)]
    let [M, I, K, x_pitch] = layout.ints([m, n, k, x.pitch])?;
    let call = MatmulSwigluForward { h, gate_up, x: x.at, w, M, I, K, x_pitch };
    launch(context, [m, n], Tiling::new([m, 2 * n], element, layout.aligned(), shared(context)), &call)
}

/// `dy` [M, N], `w` [N, K] → `dx = dy·W` [M, K], with `residual` [M, K] added where there is one; that may be `dx` itself.
///
/// # Errors
/// As [`forward`]'s.
pub fn backward_input(
    context: &Context,
    extents: Extents,
    dx: Rows<ElementSliceMut<'_>>,
    dy: Rows<ElementSlice<'_>>,
    w: ElementSlice<'_>,
    residual: Option<Rows<ElementSlice<'_>>>,
) -> Result<()> {
    let Extents { m, n, k } = extents;
    let element = w.element();
    let mut layout = Layout::new(OP);
    layout.add("dx", dx.at.as_slice().view(), element, [m, k], dx.pitch)?;
    layout.add("dy", dy.at.view(), element, [m, n], dy.pitch)?;
    layout.add("w", w.view(), element, [n, k], k)?;
    if let Some(r) = residual {
        layout.add("residual", r.at.view(), element, [m, k], r.pitch)?;
    }
    let add = i32::from(residual.is_some());
    let residual = residual.unwrap_or(Rows { at: dx.at.as_slice(), pitch: dx.pitch });
    let [dx_pitch, dy_pitch, residual_pitch] = layout.ints([dx.pitch, dy.pitch, residual.pitch])?;
    #[allow(non_snake_case)]
    let [M, N, K] = layout.ints([m, n, k])?;
    let call =
        MatmulBackwardInput { dx: dx.at, dy: dy.at, w, residual: residual.at, M, N, K, dx_pitch, dy_pitch, residual_pitch, add };
    launch(context, [m, k], Tiling::new([m, k], element, layout.aligned(), shared(context)), &call)
}

/// Through `y = h·Wᵀ` and `h = silu(g)·u`: `dy` [M, N], `w` [N, K], `gate_up` (g, then u) [M, 2·K] → `d_gate_up` likewise.
///
/// # Errors
/// As [`forward`]'s.
pub fn swiglu_backward(
    context: &Context,
    extents: Extents,
    d_gate_up: ElementSliceMut<'_>,
    dy: Rows<ElementSlice<'_>>,
    w: ElementSlice<'_>,
    gate_up: ElementSlice<'_>,
) -> Result<()> {
    let Extents { m, n, k } = extents;
    let element = w.element();
    let mut layout = Layout::new(OP);
    layout.add("d_gate_up", d_gate_up.as_slice().view(), element, [m, 2 * k], 2 * k)?;
    layout.add("dy", dy.at.view(), element, [m, n], dy.pitch)?;
    layout.add("w", w.view(), element, [n, k], k)?;
    layout.add("gate_up", gate_up.view(), element, [m, 2 * k], 2 * k)?;
    #[allow(non_snake_case)]
    let [M, N, I, dy_pitch] = layout.ints([m, n, k, dy.pitch])?;
    let call = MatmulSwigluBackward { d_gate_up, dy: dy.at, w, gate_up, M, N, I, dy_pitch };
    launch(context, [m, k], Tiling::new([m, k], element, layout.aligned(), shared(context)), &call)
}

/// Where [`backward_weight`] leaves the gradient.
#[derive(Debug, Clone, Copy)]
pub struct WeightGradient<'a> {
    /// [N, K]
    pub dw: SliceMut<'a, f32>,
    /// Whether it is added to what is there.
    pub accumulate: bool,
    /// Workspace of [`partials`] floats.
    pub partial: SliceMut<'a, f32>,
}

/// Floats of the workspace of [`backward_weight`], whatever the pitches and the device.
pub fn partials(extents: Extents, element: ElementType) -> usize {
    let Extents { m, n, k } = extents;
    // Devices differ in whether the largest tiles fit.
    let tilings = [(true, u32::MAX), (true, 100 << 10), (false, 0)];
    let tilings = tilings.map(|(aligned, shared)| Tiling::shared([n, k], element, aligned, shared));
    match tilings.map(|tiling| tiling.splits([n, k], m)).into_iter().max() {
        None | Some(1) => 0,
        Some(splits) => splits * n * k,
    }
}

/// `dy` [M, N], `x` [M, K] → `dW = dyᵀ·x` [N, K].
///
/// # Errors
/// As [`forward`]'s.
pub fn backward_weight(
    context: &Context,
    extents: Extents,
    to: WeightGradient<'_>,
    dy: Rows<ElementSlice<'_>>,
    x: Rows<ElementSlice<'_>>,
) -> Result<()> {
    let (Extents { m, n, k }, WeightGradient { dw, accumulate, partial }) = (extents, to);
    let element = x.at.element();
    let mut layout = Layout::new(OP);
    layout.add("dw", dw.view(), ElementType::F32, [n, k], k)?;
    layout.add("dy", dy.at.view(), element, [m, n], dy.pitch)?;
    layout.add("x", x.at.view(), element, [m, k], x.pitch)?;
    let tiling = Tiling::shared([n, k], element, layout.aligned(), shared(context));
    let parts = tiling.splits([n, k], m);
    if parts > 1 {
        layout.add("partial", partial.view(), ElementType::F32, [parts * n, k], k)?;
    }
    #[allow(non_snake_case)]
    let [M, N, K] = layout.ints([m, n, k])?;
    let [dy_pitch, x_pitch, splits, count] = layout.ints([dy.pitch, x.pitch, parts, n * k])?;
    let accumulate = i32::from(accumulate);
    let sum = |dw, accumulate| {
        let call = MatmulBackwardWeight { dw, dy: dy.at, x: x.at, M, N, K, dy_pitch, x_pitch, splits, accumulate };
        launch(context, [n, k], tiling, &call)
    };
    if parts == 1 {
        return sum(dw, accumulate);
    }
    sum(partial, 0)?;
    let call = MatmulAddPartials { dw, partial: partial.as_slice(), count, splits, accumulate };
    context.launch_for(element, &tiling.defines(), &call)
}

/// The most bytes of shared memory that a block can have.
pub(crate) fn shared(context: &Context) -> u32 {
    context.device().info().limits.shared_per_block
}

/// Nothing is launched for a matrix without elements.
fn launch<C: Call>(context: &Context, c: [usize; 2], tiling: Tiling, call: &C) -> Result<()> {
    if c.contains(&0) { Ok(()) } else { context.launch(&tiling.defines(), call) }
}
