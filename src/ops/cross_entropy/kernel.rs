//! Cross-entropy of logits on a device: `kernels/cross_entropy.cu`.

use crate::error::Result;
use crate::gpu::kernels::cross_entropy::{CrossEntropyCount, CrossEntropyForward, CrossEntropyForwardBackward, CrossEntropyMean};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, ElementType, Slice, SliceMut};
use crate::ops::kernel_int;

/// A chunk of logits.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Rows, one for each label.
    pub rows: usize,
    /// Logits of a row, V.
    pub vocab_size: usize,
    /// Elements from a row to the next; whole rows of 16 bytes are fastest.
    pub pitch: usize,
}

impl Extents {
    /// Threads of a row, and how many vectors of 16 bytes each of them holds: none where the row is too long for registers.
    fn defines(self, element: ElementType) -> [(&'static str, i64); 2] {
        /// Logits that a thread holds at most.
        const HELD: usize = 32;
        let threads = self.vocab_size.div_ceil(HELD).next_power_of_two().clamp(32, 1024);
        let vectors = self.vocab_size.div_ceil(threads * 16 / element.bytes());
        let held = if threads * HELD < self.vocab_size { 0 } else { vectors };
        [("ROW_THREADS", threads as i64), ("HELD", held as i64)]
    }

    /// Rows, V and pitch as the kernels count them.
    fn integers(self) -> Result<[i32; 3]> {
        let of = |what, value| kernel_int("cross_entropy", what, value);
        Ok([of("the number of rows", self.rows)?, of("the vocabulary", self.vocab_size)?, of("the pitch", self.pitch)?])
    }
}

/// Adds to `counted` (one) how many of `labels` `[N]` are not to be ignored.
pub fn count(context: &Context, counted: SliceMut<'_, i32>, labels: Slice<'_, i32>) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    #[allow(non_snake_case)] // the kernel's names
    let N = kernel_int("cross_entropy", "the number of labels", labels.len())?;
    context.launch(&[], &CrossEntropyCount { counted, labels, N })
}

/// `logits` [R, V], `labels` `[R]`, each in 0..V or to be ignored → `loss` `[R]`.
pub fn forward(
    context: &Context,
    extents: Extents,
    loss: SliceMut<'_, f32>,
    logits: ElementSlice<'_>,
    labels: Slice<'_, i32>,
) -> Result<()> {
    if extents.rows == 0 {
        return Ok(());
    }
    #[allow(non_snake_case)]
    let [R, V, pitch] = extents.integers()?;
    context.launch(&extents.defines(logits.element()), &CrossEntropyForward { loss, logits, labels, R, V, pitch })
}

/// What the gradient is multiplied by: `loss_scale / counted`, one number each.
#[derive(Debug, Clone, Copy)]
pub struct Scale<'a> {
    /// How many labels count in the whole accumulated batch: see [`count`].
    pub counted: Slice<'a, i32>,
    /// What the loss is multiplied by.
    pub loss_scale: Slice<'a, f32>,
}

/// The same, and `logits` become their gradient.
pub fn forward_backward(
    context: &Context,
    extents: Extents,
    logits: ElementSliceMut<'_>,
    loss: SliceMut<'_, f32>,
    labels: Slice<'_, i32>,
    scale: Scale<'_>,
) -> Result<()> {
    if extents.rows == 0 {
        return Ok(());
    }
    #[allow(non_snake_case)]
    let [R, V, pitch] = extents.integers()?;
    let (defines, Scale { counted, loss_scale }) = (extents.defines(logits.as_slice().element()), scale);
    context.launch(&defines, &CrossEntropyForwardBackward { logits, loss, labels, counted, loss_scale, R, V, pitch })
}

/// Adds to `mean` (one) the sum of `loss` `[N]` over `counted` (one), or nothing where that is 0.
pub fn mean(context: &Context, mean: SliceMut<'_, f32>, loss: Slice<'_, f32>, counted: Slice<'_, i32>) -> Result<()> {
    #[allow(non_snake_case)]
    let N = kernel_int("cross_entropy", "the number of losses", loss.len())?;
    context.launch(&[], &CrossEntropyMean { mean, loss, counted, N })
}
