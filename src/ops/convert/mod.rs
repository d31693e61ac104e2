//! Conversions between f32 and the type of activations, on a device: `kernels/convert.cu`. On the CPU tensors convert themselves.

pub mod cases;

use crate::error::Result;
use crate::gpu::kernels::convert::{ConvertFromFloat, ConvertToFloat};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, Slice, SliceMut};

/// `x` → `y` of the same length, exactly.
pub fn to_float(context: &Context, y: SliceMut<'_, f32>, x: ElementSlice<'_>) -> Result<()> {
    match x.len() as i64 {
        0 => Ok(()),
        n => context.launch(&[], &ConvertToFloat { y, x, n }),
    }
}

/// `x` → `y` of the same length, each to the nearest, ties to even.
pub fn from_float(context: &Context, y: ElementSliceMut<'_>, x: Slice<'_, f32>) -> Result<()> {
    match x.len() as i64 {
        0 => Ok(()),
        n => context.launch(&[], &ConvertFromFloat { y, x, n }),
    }
}
