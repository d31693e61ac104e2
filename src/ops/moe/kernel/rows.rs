//! Rows to the experts and back on a device: `kernels/moe_permute.cu`, `kernels/moe_combine.cu`.

use super::integer;
use crate::error::{Error, Result};
use crate::gpu::kernels::moe_combine::{MoeCombineBackward, MoeCombineForward};
use crate::gpu::kernels::moe_permute::{MoePermuteBackward, MoePermuteForward};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, Slice, SliceMut};

/// Rows of N tokens, each of which goes to k experts. Every tensor begins at a multiple of 16 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// N.
    pub tokens: usize,
    /// k.
    pub top_k: usize,
    /// H, elements of a row.
    pub width: usize,
}

/// Where rows go, and how they are weighed.
#[derive(Debug, Clone, Copy)]
pub struct Weighed<'a> {
    /// `[N, k]`
    pub weights: Slice<'a, f32>,
    /// `[N, k]`
    pub row_of_slot: Slice<'a, i32>,
}

impl Rows {
    fn tokens(&self) -> Result<i32> {
        integer("rows", self.tokens * self.top_k)?;
        integer("tokens", self.tokens)
    }

    fn width(&self) -> Result<i32> {
        integer("elements of a row", self.width)
    }

    fn defines(&self) -> Result<[(&'static str, i64); 1]> {
        if self.top_k == 0 {
            return Err(Error::device("mixture of experts: each token goes to 0 experts"));
        }
        Ok([("TOP_K", self.top_k as i64)])
    }

    /// `x` `[N, H]`, whose rows lie `pitch` elements apart → `y` `[N·k, H]` in the order of the experts.
    pub fn permute(
        &self,
        context: &Context,
        y: ElementSliceMut<'_>,
        x: ElementSlice<'_>,
        pitch: usize,
        row_of_slot: Slice<'_, i32>,
    ) -> Result<()> {
        let x_pitch = integer("elements from row to row", pitch)?;
        context.launch(&self.defines()?, &MoePermuteForward { y, x, row_of_slot, N: self.tokens()?, H: self.width()?, x_pitch })
    }

    /// `dy` `[N·k, H]` → `dx` `[N, H]`, or added to what is there.
    pub fn permute_backward(
        &self,
        context: &Context,
        dx: ElementSliceMut<'_>,
        accumulate: bool,
        dy: ElementSlice<'_>,
        row_of_slot: Slice<'_, i32>,
    ) -> Result<()> {
        let (tokens, width) = (self.tokens()?, self.width()?);
        let call = MoePermuteBackward { dx, dy, row_of_slot, N: tokens, H: width, accumulate: i32::from(accumulate) };
        context.launch(&self.defines()?, &call)
    }

    /// What the experts say, `z` `[N·k, H]` → `y` `[N, H]`, or added to what is there: what shared experts say, or the residual stream.
    pub fn combine(
        &self,
        context: &Context,
        y: ElementSliceMut<'_>,
        accumulate: bool,
        z: ElementSlice<'_>,
        by: Weighed<'_>,
    ) -> Result<()> {
        let Weighed { weights, row_of_slot } = by;
        let (tokens, width) = (self.tokens()?, self.width()?);
        let call = MoeCombineForward { y, z, weights, row_of_slot, N: tokens, H: width, accumulate: i32::from(accumulate) };
        context.launch(&self.defines()?, &call)
    }

    /// `dy` `[N, H]` → `dz` `[N·k, H]`, which may be `z` itself, and the weights' gradient `[N, k]`.
    pub fn combine_backward(
        &self,
        context: &Context,
        (dz, d_weights): (ElementSliceMut<'_>, SliceMut<'_, f32>),
        dy: ElementSlice<'_>,
        z: ElementSlice<'_>,
        by: Weighed<'_>,
    ) -> Result<()> {
        let Weighed { weights, row_of_slot } = by;
        let (tokens, width) = (self.tokens()?, self.width()?);
        context.launch(&self.defines()?, &MoeCombineBackward { dz, d_weights, dy, z, weights, row_of_slot, N: tokens, H: width })
    }
}
