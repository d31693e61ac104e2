//! Gated activations on a device: `kernels/gated.cu`.

use super::Activation;
use crate::error::Result;
use crate::gpu::kernels::gated::{GatedBackward, GatedForward};
use crate::gpu::{Context, ElementSlice, ElementSliceMut};
use crate::ops::kernel_int;

/// Rows, and columns of the gate.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Rows, R.
    pub rows: usize,
    /// Columns of the gate, as many as of what it lets through, I.
    pub cols: usize,
}

impl Extents {
    /// R and I as the kernels count them, and whether there is anything to do.
    fn integers(self) -> Result<Option<(i32, i32)>> {
        if self.rows * self.cols == 0 {
            return Ok(None);
        }
        Ok(Some((kernel_int("gated", "the number of rows", self.rows)?, kernel_int("gated", "the width", self.cols)?)))
    }
}

fn defines(activation: Activation) -> [(&'static str, i64); 1] {
    let number = match activation {
        Activation::Silu => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Relu => 3,
    };
    [("ACTIVATION", number)]
}

/// `x` [R, 2·I], rows `x_pitch` elements apart, gate before what it lets through → `y` [R, I].
pub fn forward(
    context: &Context,
    extents: Extents,
    activation: Activation,
    y: ElementSliceMut<'_>,
    (x, x_pitch): (ElementSlice<'_>, usize),
) -> Result<()> {
    #[allow(non_snake_case)] // the kernel's names
    let Some((R, I)) = extents.integers()? else { return Ok(()) };
    let x_pitch = kernel_int("gated", "the pitch", x_pitch)?;
    context.launch(&defines(activation), &GatedForward { y, x, R, I, x_pitch })
}

/// `dy` [R, I], `x` as in [`forward`] → `dx` [R, 2·I], rows `dx_pitch` elements apart. They may be the same rows.
pub fn backward(
    context: &Context,
    extents: Extents,
    activation: Activation,
    (dx, dx_pitch): (ElementSliceMut<'_>, usize),
    dy: ElementSlice<'_>,
    (x, x_pitch): (ElementSlice<'_>, usize),
) -> Result<()> {
    #[allow(non_snake_case)]
    let Some((R, I)) = extents.integers()? else { return Ok(()) };
    let (dx_pitch, x_pitch) = (kernel_int("gated", "the pitch", dx_pitch)?, kernel_int("gated", "the pitch", x_pitch)?);
    context.launch(&defines(activation), &GatedBackward { dx, dy, x, R, I, dx_pitch, x_pitch })
}
