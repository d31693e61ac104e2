//! The product by the `gemm` crate, for `f64` and for processors without kernels of our own.

use super::{GemmFloat, MatMut, MatRef};

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
