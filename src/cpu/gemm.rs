//! Matrix products.

use gemm::Parallelism;

/// A read-only matrix: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct MatRef<'a, F> {
    /// The elements.
    pub data: &'a [F],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

impl<'a, F> MatRef<'a, F> {
    /// A row-major matrix without gaps.
    pub fn new(data: &'a [F], rows: usize, cols: usize) -> Self {
        Self::with_pitch(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows begin `pitch` elements apart.
    pub fn with_pitch(data: &'a [F], rows: usize, cols: usize, pitch: usize) -> Self {
        Self { data, rows, cols, row_stride: pitch, col_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// A row-major matrix to write.
pub struct MatMut<'a, F> {
    /// The elements.
    pub data: &'a mut [F],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
}

impl<'a, F> MatMut<'a, F> {
    /// A matrix without gaps.
    pub fn new(data: &'a mut [F], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols }
    }

    /// A matrix whose rows begin `pitch` elements apart.
    pub fn with_pitch(data: &'a mut [F], rows: usize, cols: usize, pitch: usize) -> Self {
        Self { data, rows, cols, row_stride: pitch }
    }
}

/// A float type that matrices can be multiplied in.
pub trait GemmFloat: Copy + Send + Sync + num_traits::Float + 'static {}
impl GemmFloat for f32 {}
impl GemmFloat for f64 {}

/// C = alpha·A·B, or C += alpha·A·B where `accumulate`. A `[m, k]`, B `[k, n]`, C `[m, n]`.
///
/// Over rayon's threads if `parallel`, else on the calling one; the bits are the same.
pub fn matmul<F: GemmFloat>(c: MatMut<F>, alpha: F, a: MatRef<F>, b: MatRef<F>, accumulate: bool, parallel: bool) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(b.rows == k && c.rows == m && c.cols == n, "matmul of [{m}, {k}] by [{}, {n}] into [{}, {}]", b.rows, c.rows, c.cols);
    let last =
        |rows: usize, cols: usize, rs: usize, cs: usize| if rows * cols == 0 { 0 } else { (rows - 1) * rs + (cols - 1) * cs + 1 };
    assert!(a.data.len() >= last(m, k, a.row_stride, a.col_stride), "matmul: A is too short");
    assert!(b.data.len() >= last(k, n, b.row_stride, b.col_stride), "matmul: B is too short");
    assert!(c.data.len() >= last(m, n, c.row_stride, 1), "matmul: C is too short");
    let threads = if parallel { Parallelism::Rayon(0) } else { Parallelism::None };
    let s = |x: usize| x as isize;
    // SAFETY: the views lie inside their slices, as asserted above, and C is borrowed mutably, so that it overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.data.as_mut_ptr(),
            1,
            s(c.row_stride),
            accumulate,
            a.data.as_ptr(),
            s(a.col_stride),
            s(a.row_stride),
            b.data.as_ptr(),
            s(b.col_stride),
            s(b.row_stride),
            F::one(),
            alpha,
            false,
            false,
            false,
            threads,
        );
    }
}
