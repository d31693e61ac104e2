//! The product by the `gemm` crate, for `f64` and for processors without kernels of our own.

use super::stored::Stored;
use super::{GemmFloat, MatMut, MatRef};
use rayon::prelude::*;

/// Columns of B that are widened at a time.
const COLS: usize = 256;

/// The product with a B that may be of a narrower type than the crate takes together with f32: so much of it at a time is widened.
pub(super) fn widened<B: Stored>(c: MatMut<f32>, alpha: f32, a: MatRef<f32>, b: MatRef<B>, accumulate: bool, parallel: bool) {
    if let Some(b) = B::as_f32(b) {
        return product(c, alpha, a, b, accumulate, parallel);
    }
    let MatMut { data, rows, cols, row_stride } = c;
    let mut block = vec![0.0f32; b.rows * COLS.min(cols)];
    for first in (0..cols).step_by(COLS) {
        let n = COLS.min(cols - first);
        let block = &mut block[..n * b.rows];
        block.par_chunks_exact_mut(b.rows).enumerate().for_each(|(j, column)| {
            let start = (first + j) * b.col_stride;
            for (p, x) in column.iter_mut().enumerate() {
                *x = b.data[start + p * b.row_stride].widen();
            }
        });
        let c = MatMut::with_pitch(&mut data[first..], rows, n, row_stride);
        product(c, alpha, a, MatRef::new(block, n, b.rows).t(), accumulate, parallel);
    }
}

/// `C = alpha·A·B` or `C += alpha·A·B`. The views must be in bounds, as [`super::matmul`] has asserted.
#[allow(unsafe_code)]
pub(super) fn product<F: GemmFloat + 'static>(
    c: MatMut<F>,
    alpha: F,
    a: MatRef<F>,
    b: MatRef<F>,
    accumulate: bool,
    parallel: bool,
) {
    // The crate, too, shares out rows and columns among threads, never the sum over k: see the test of equal bits.
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: `matmul` has asserted that every element of the three views lies in its slice, and C is borrowed exclusively.
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            1,
            c.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            F::one(),
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
