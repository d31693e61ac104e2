//! Dropout on a device: `kernels/dropout.cu`.

use super::threshold_and_scale;
use crate::error::Result;
use crate::gpu::kernels::dropout::Dropout;
use crate::gpu::{Context, ElementSlice, ElementSliceMut, Slice};
use crate::ops::kernel_int;

/// The random choices, as a device has them.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// Probability of dropping, in [0, 1).
    pub p: f64,
    /// One: the key of the generator.
    pub key: Slice<'a, u64>,
    /// The global index of each sample of the batch, `[B]`.
    pub samples: Slice<'a, u64>,
}

/// `x` → `y`, B samples of `sample_len` elements each. They may be the same memory. The gradient is computed likewise, from `dy`.
pub fn dropout(context: &Context, sample_len: usize, mask: Mask<'_>, y: ElementSliceMut<'_>, x: ElementSlice<'_>) -> Result<()> {
    let Mask { p, key, samples } = mask;
    if sample_len == 0 || samples.is_empty() {
        return Ok(());
    }
    let (threshold, scale) = threshold_and_scale(p);
    #[allow(non_snake_case)] // the kernel's names
    let (B, S) = (
        kernel_int("dropout", "the number of samples", samples.len())?,
        kernel_int("dropout", "the number of elements of a sample", sample_len)?,
    );
    context.launch(&[], &Dropout { y, x, key, samples, B, S, threshold, scale: scale as f32 })
}
