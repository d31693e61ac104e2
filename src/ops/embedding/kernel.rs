//! Embedding on a device: `kernels/embedding.cu`.
//!
//! The gradient takes the positions in the order of their ids: [`sort`], which needs the ids alone, then [`backward`].

use crate::error::{Error, Result};
use crate::gpu::kernels::embedding::{EmbeddingBackward, EmbeddingBackwardRest, EmbeddingCount, EmbeddingForward, EmbeddingSort};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, Slice, SliceMut};
use crate::ops::kernel_int;

/// The largest vocabulary whose ids two digits of 9 bits tell apart.
pub const MAX_VOCAB_SIZE: usize = 1 << 18;

/// Ids that one block sorts.
const TILE: usize = 4096;
/// Sorted positions that one warp adds up.
const PIECE: usize = 64;

/// How many ids there are, of how many, and how wide a row is.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Ids, N.
    pub ids: usize,
    /// Rows of the table, V.
    pub vocab_size: usize,
    /// Columns of the table, H.
    pub hidden: usize,
}

impl Extents {
    /// Integers of the workspace `counts` of [`sort`].
    pub fn counts(self) -> usize {
        self.ids.div_ceil(TILE) << self.digit_bits()
    }

    /// Rows of the workspace `partial` of [`backward`].
    pub fn partials(self) -> usize {
        self.ids.div_ceil(PIECE)
    }

    /// Two digits of so many bits make an id.
    fn digit_bits(self) -> usize {
        let bits = usize::BITS - self.vocab_size.saturating_sub(1).leading_zeros();
        bits.div_ceil(2).max(5) as usize
    }

    fn defines(self) -> Result<[(&'static str, i64); 3]> {
        if self.vocab_size > MAX_VOCAB_SIZE {
            let message =
                format!("embedding: {} entries of the vocabulary, at most {MAX_VOCAB_SIZE} can be sorted", self.vocab_size);
            return Err(Error::device(message));
        }
        Ok([("DIGIT_BITS", self.digit_bits() as i64), ("TILE", TILE as i64), ("PIECE", PIECE as i64)])
    }

    /// N and H as the kernels count them.
    fn ids_and_hidden(self) -> Result<(i32, i32)> {
        Ok((kernel_int("embedding", "the number of ids", self.ids)?, kernel_int("embedding", "the width", self.hidden)?))
    }
}

/// `table` [V, H], `ids` `[N]`, each in 0..V → `y` [N, H].
pub fn forward(
    context: &Context,
    extents: Extents,
    y: ElementSliceMut<'_>,
    table: ElementSlice<'_>,
    ids: Slice<'_, i32>,
) -> Result<()> {
    if extents.ids == 0 {
        return Ok(());
    }
    #[allow(non_snake_case)] // the kernel's names
    let (N, H) = extents.ids_and_hidden()?;
    context.launch(&extents.defines()?, &EmbeddingForward { y, table, ids, N, H })
}

/// What [`sort`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Sorting<'a> {
    /// `[N]`, the ids in order.
    pub sorted: SliceMut<'a, i32>,
    /// `[N]`, where each of them stood.
    pub order: SliceMut<'a, i32>,
    /// Workspaces, `[N]` each: the same after the first pass.
    pub first_pass: [SliceMut<'a, i32>; 2],
    /// Workspace, [[`Extents::counts`]].
    pub counts: SliceMut<'a, i32>,
}

/// `ids` `[N]`, each in 0..V → their order; equal ids stay in theirs.
pub fn sort(context: &Context, extents: Extents, to: Sorting<'_>, ids: Slice<'_, i32>) -> Result<()> {
    if extents.ids == 0 {
        return Ok(());
    }
    #[allow(non_snake_case)]
    let (N, _) = extents.ids_and_hidden()?;
    let (defines, Sorting { sorted, order, first_pass: [keys, first_order], counts }) = (extents.defines()?, to);
    // The first pass has no order before it, and reads none.
    let passes = [(ids, ids, keys, first_order), (keys.as_slice(), first_order.as_slice(), sorted, order)];
    for (digit, (keys, before, sorted, order)) in passes.into_iter().enumerate() {
        let shift = (digit * extents.digit_bits()) as i32;
        context.launch(&defines, &EmbeddingCount { counts, keys, N, shift })?;
        context.launch(&defines, &EmbeddingSort { sorted, order, keys, before, counts: counts.as_slice(), N, shift })?;
    }
    Ok(())
}

/// The order that [`sort`] has found.
#[derive(Debug, Clone, Copy)]
pub struct Sorted<'a> {
    /// `[N]`, the ids in order.
    pub sorted: Slice<'a, i32>,
    /// `[N]`, where each of them stood.
    pub order: Slice<'a, i32>,
}

/// `dy` [N, H] → added to `dtable` [V, H]; `partial` is a workspace of [[`Extents::partials`], H].
pub fn backward(
    context: &Context,
    extents: Extents,
    dtable: SliceMut<'_, f32>,
    partial: SliceMut<'_, f32>,
    dy: ElementSlice<'_>,
    sorted: Sorted<'_>,
) -> Result<()> {
    if extents.ids == 0 {
        return Ok(());
    }
    #[allow(non_snake_case)]
    let (N, H) = extents.ids_and_hidden()?;
    let (defines, Sorted { sorted, order }) = (extents.defines()?, sorted);
    context.launch(&defines, &EmbeddingBackward { dtable, partial, dy, sorted, order, N, H })?;
    let partial = partial.as_slice();
    context.launch_for(dy.element(), &defines, &EmbeddingBackwardRest { dtable, partial, sorted, N, H })
}
