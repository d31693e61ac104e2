//! What a tensor's values amount to, on a device: `kernels/reduce.cu`.

pub mod cases;

use crate::error::Result;
use crate::gpu::kernels::reduce::{ReduceLast, ReducePartial};
use crate::gpu::{Context, ElementSlice, SliceMut};

/// Where [`reduce`] writes: one number each, or [`partials`] of them in its workspace.
#[derive(Debug, Clone, Copy)]
pub struct Totals<'a> {
    /// The sum of all values.
    pub sum: SliceMut<'a, f32>,
    /// The largest magnitude among the values that are numbers.
    pub most: SliceMut<'a, f32>,
    /// How many values are infinite or not a number.
    pub not_finite: SliceMut<'a, i32>,
}

/// How many partial results `len` values have: one for each block. It depends on nothing else, for the order of additions does on it.
pub fn partials(len: usize) -> usize {
    const BLOCKS: usize = 264;
    const VALUES_OF_A_BLOCK: usize = 16384;
    len.div_ceil(VALUES_OF_A_BLOCK).clamp(1, BLOCKS)
}

/// Sum, largest magnitude and number of values that are not finite of `x`, in a fixed order.
pub fn reduce(context: &Context, to: Totals<'_>, workspace: Totals<'_>, x: ElementSlice<'_>) -> Result<()> {
    #[allow(non_snake_case)] // the kernel's names
    let (n, P) = (x.len() as i64, partials(x.len()) as i32);
    let Totals { sum: sums, most, not_finite } = workspace;
    context.launch(&[], &ReducePartial { sums, most, not_finite, x, n, P })?;
    let (sums, mosts, not_finites) = (sums.as_slice(), most.as_slice(), not_finite.as_slice());
    let Totals { sum, most, not_finite } = to;
    context.launch_for(x.element(), &[], &ReduceLast { sum, most, not_finite, sums, mosts, not_finites, P })
}
