//! Addition on a device: `kernels/add.cu`.

use crate::error::Result;
use crate::gpu::kernels::add::{Add, AddScaled};
use crate::gpu::{Context, ElementSlice, ElementSliceMut};

/// `y = a + b`, all of a's length. `y` may be `a` or `b`.
pub fn add(context: &Context, y: ElementSliceMut<'_>, a: ElementSlice<'_>, b: ElementSlice<'_>) -> Result<()> {
    match a.len() as i64 {
        0 => Ok(()),
        n => context.launch(&[], &Add { y, a, b, n }),
    }
}

/// `y = a + scale · b`, likewise.
pub fn add_scaled(context: &Context, y: ElementSliceMut<'_>, a: ElementSlice<'_>, b: ElementSlice<'_>, scale: f32) -> Result<()> {
    match a.len() as i64 {
        0 => Ok(()),
        n => context.launch(&[], &AddScaled { y, a, b, scale, n }),
    }
}
