//! Products of a few rows with a weight matrix on a device: `kernels/gemv.cu`.

use crate::error::{Error, Result};
use crate::gpu::kernels::gemv::{
    GemvForward, GemvHeads, GemvHeadsTransposed, GemvNorm, GemvNormFloat, GemvNormSwiglu, GemvResidual,
};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, SliceMut};

/// Extents of a product. Where `k` and `x_pitch` are multiples of 8, all addresses must be of 16.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Rows of x; up to 8 cost what one does.
    pub batch: usize,
    /// Columns of y.
    pub n: usize,
    /// Columns of x that are used.
    pub k: usize,
    /// Elements from one row of x to the next.
    pub x_pitch: usize,
}

/// `size` as a kernel takes it.
fn int(size: usize) -> Result<i32> {
    i32::try_from(size).map_err(|_| Error::device(format!("gemv: {size} is too large")))
}

impl Extents {
    fn ints(self) -> Result<[i32; 4]> {
        let Self { batch, n, k, x_pitch } = self;
        if batch == 0 || n == 0 || k == 0 || x_pitch < k {
            return Err(Error::device(format!("gemv: no such extents: {self:?}")));
        }
        Ok([int(batch)?, int(n)?, int(k)?, int(x_pitch)?])
    }
}

/// The norm before a product.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// RMSNorm's weight, `[k]`.
    pub scale: ElementSlice<'a>,
    /// What is added to the mean square.
    pub eps: f32,
}

/// `x` [batch, x_pitch], `w` [n, k] → `y` [batch, n] `= x·wᵀ`.
#[allow(non_snake_case)] // the kernel's names
pub fn forward(
    context: &Context,
    extents: Extents,
    y: ElementSliceMut<'_>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
) -> Result<()> {
    let [batch, N, K, x_pitch] = extents.ints()?;
    context.launch(&[], &GemvForward { y, x, w, batch, N, K, x_pitch })
}

/// `y` [batch, n] `= residual + x·wᵀ`; `y` may be the residual itself.
#[allow(non_snake_case)]
pub fn residual(
    context: &Context,
    extents: Extents,
    y: ElementSliceMut<'_>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
    residual: ElementSlice<'_>,
) -> Result<()> {
    let [batch, N, K, x_pitch] = extents.ints()?;
    context.launch(&[], &GemvResidual { y, x, w, residual, batch, N, K, x_pitch })
}

/// `y` [batch, n] `= norm(x)·wᵀ`.
#[allow(non_snake_case)]
pub fn norm(
    context: &Context,
    extents: Extents,
    y: ElementSliceMut<'_>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
    Norm { scale, eps }: Norm<'_>,
) -> Result<()> {
    let [batch, N, K, x_pitch] = extents.ints()?;
    context.launch(&[], &GemvNorm { y, x, w, scale, batch, N, K, x_pitch, eps })
}

/// The same in float: logits.
#[allow(non_snake_case)]
pub fn norm_float(
    context: &Context,
    extents: Extents,
    y: SliceMut<'_, f32>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
    Norm { scale, eps }: Norm<'_>,
) -> Result<()> {
    let [batch, N, K, x_pitch] = extents.ints()?;
    context.launch(&[], &GemvNormFloat { y, x, w, scale, batch, N, K, x_pitch, eps })
}

/// `w` [2n, k], gate above up: `y` [batch, n] `= silu(norm(x)·gateᵀ) ⊙ norm(x)·upᵀ`.
#[allow(non_snake_case)]
pub fn norm_swiglu(
    context: &Context,
    extents: Extents,
    y: ElementSliceMut<'_>,
    x: ElementSlice<'_>,
    w: ElementSlice<'_>,
    Norm { scale, eps }: Norm<'_>,
) -> Result<()> {
    let [batch, N, K, x_pitch] = extents.ints()?;
    context.launch(&[], &GemvNormSwiglu { y, x, w, scale, batch, N, K, x_pitch, eps })
}

/// A matrix for each head: head h's begins `stride · h` elements behind the first one's.
#[derive(Debug, Clone, Copy)]
pub struct HeadMatrices<'a> {
    /// From the first head's first element on.
    pub w: ElementSlice<'a>,
    /// Heads.
    pub heads: usize,
    /// Elements from one head's matrix to the next one's: a multiple of 8 where the columns are.
    pub stride: usize,
}

/// `x` [batch, heads, k], matrices [n, k] → `y` [batch, heads, n], head by head `x·wᵀ`.
#[allow(non_snake_case)]
pub fn heads(
    context: &Context,
    [batch, n, k]: [usize; 3],
    y: ElementSliceMut<'_>,
    x: ElementSlice<'_>,
    HeadMatrices { w, heads, stride }: HeadMatrices<'_>,
) -> Result<()> {
    if heads == 0 || (k.is_multiple_of(8) && !stride.is_multiple_of(8)) {
        return Err(Error::device(format!("gemv: {heads} heads, matrices {stride} elements apart, of {k} columns")));
    }
    let [batch, N, K, _] = Extents { batch, n, k, x_pitch: k }.ints()?;
    context.launch(&[], &GemvHeads { y, x, w, batch, heads: int(heads)?, N, K, w_head: int(stride)? })
}

/// Rows that hold a part for each head.
#[derive(Debug, Clone, Copy)]
pub struct HeadRows<'a> {
    /// From the first part on.
    pub x: ElementSlice<'a>,
    /// Elements from one row to the next.
    pub pitch: usize,
    /// Elements from one head's part to the next one's.
    pub stride: usize,
}

/// `x` with parts `[k]`, matrices [k, n] → `y` [batch, heads, n], head by head `x·w`.
#[allow(non_snake_case)]
pub fn heads_transposed(
    context: &Context,
    [batch, n, k]: [usize; 3],
    y: ElementSliceMut<'_>,
    HeadRows { x, pitch, stride: x_stride }: HeadRows<'_>,
    HeadMatrices { w, heads, stride }: HeadMatrices<'_>,
) -> Result<()> {
    if heads == 0 {
        return Err(Error::device("gemv: no heads"));
    }
    let [batch, N, K, x_pitch] = Extents { batch, n, k, x_pitch: pitch }.ints()?;
    let (heads, x_head, w_head) = (int(heads)?, int(x_stride)?, int(stride)?);
    context.launch(&[], &GemvHeadsTransposed { y, x, w, batch, heads, N, K, x_pitch, x_head, w_head })
}
