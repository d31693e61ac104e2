//! Matrix products on the CPU: `C = α·A·B` and `C += α·A·B` over strided views.
//!
//! On x86-64 with AVX-512, or AVX2 and FMA, `f32` runs on kernels of our own, after the scheme of Goto and van de Geijn ("Anatomy of
//! high-performance matrix multiplication", ACM TOMS 2008): `kernel` holds the innermost tile, `pack` the copies that feed
//! it, `blocked` the loops around it, and `skinny` the products with few rows, which are bound by memory. Everything else (`f64`, other processors) goes to the `gemm` crate.
//!
//! **B may be bf16** where the rest is f32: `stored` widens it, exactly, in registers where few rows read it once, else while it is packed.
//! The processors' own products of bf16 (`vdpbf16ps`, AMX) are not used: they would round A to bf16 as well, and decoding, bound by the
//! reading of B, would gain nothing.
//!
//! **Same bits for any number of threads.** Threads share out rows and columns of C, never a sum: each element of C is summed over k by
//! one thread, in ascending k, in blocks whose bounds depend on k alone, and which path a product takes depends on its shape and strides
//! alone. Different instruction sets do differ in their last bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocked;
mod fallback;
#[cfg(target_arch = "x86_64")]
mod isa;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod skinny;
mod stored;
#[cfg(test)]
mod tests;

use half::bf16;
use stored::Stored;

/// A read-only matrix: element (i, j) is `data[i * row_stride + j * col_stride]`. One of the strides is usually 1.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, F> {
    /// The elements, from (0, 0) on.
    pub data: &'a [F],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
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

    /// A row-major matrix whose rows start `pitch` elements apart.
    pub fn with_pitch(data: &'a [F], rows: usize, cols: usize, pitch: usize) -> Self {
        Self { data, rows, cols, row_stride: pitch, col_stride: 1 }
    }

    /// The transpose: the same elements, rows and columns swapped.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// The elements from (i, j) on.
    #[cfg(any(target_arch = "x86_64", test))]
    fn from(&self, i: usize, j: usize) -> &'a [F] {
        &self.data[i * self.row_stride + j * self.col_stride..]
    }

    /// Rows `start` to `start + rows`.
    #[cfg(target_arch = "x86_64")]
    fn row_range(self, start: usize, rows: usize) -> Self {
        Self { data: self.from(start, 0), rows, ..self }
    }

    /// Columns `start` to `start + cols`.
    #[cfg(target_arch = "x86_64")]
    fn col_range(self, start: usize, cols: usize) -> Self {
        Self { data: self.from(0, start), cols, ..self }
    }

    fn assert_in_bounds(&self, name: &str) {
        let Self { rows, cols, row_stride, col_stride, .. } = *self;
        assert!(
            extent(rows, cols, row_stride, col_stride) <= self.data.len(),
            "matmul: {name} [{rows}, {cols}] with strides {row_stride} and {col_stride} reaches beyond its {} elements",
            self.data.len()
        );
    }
}

/// A matrix to write to: element (i, j) is `data[i * row_stride + j]`.
#[derive(Debug)]
pub struct MatMut<'a, F> {
    /// The elements, from (0, 0) on.
    pub data: &'a mut [F],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next, at least `cols`.
    pub row_stride: usize,
}

impl<'a, F> MatMut<'a, F> {
    /// A row-major matrix without gaps.
    pub fn new(data: &'a mut [F], rows: usize, cols: usize) -> Self {
        Self::with_pitch(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `pitch` elements apart; what lies between them is left alone.
    pub fn with_pitch(data: &'a mut [F], rows: usize, cols: usize, pitch: usize) -> Self {
        Self { data, rows, cols, row_stride: pitch }
    }
}

/// Elements from the first to one past the last of a strided matrix.
fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 }
}

/// The element types of A and C that [`matmul`] takes: `f32` and `f64`.
pub trait GemmFloat: num_traits::Float + Send + Sync + Operand<Self> {}
impl GemmFloat for f32 {}
impl GemmFloat for f64 {}

/// The element types of B where those of A and C are `F`: the same, or bf16 beside f32.
pub trait Operand<F>: Copy + Send + Sync + private::Product<F> {
    /// Its value, which F holds exactly.
    fn widen(self) -> F;
}

impl<F: GemmFloat> Operand<F> for F {
    #[inline(always)]
    fn widen(self) -> F {
        self
    }
}

impl Operand<f32> for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

mod private {
    use super::{MatMut, MatRef};

    /// The product itself, for views that were found in bounds, with m, n and k above 0; this is B's type.
    pub trait Product<F>: Sized {
        fn product(c: MatMut<F>, alpha: F, a: MatRef<F>, b: MatRef<Self>, accumulate: bool, parallel: bool);
    }
}

/// `C = alpha·A·B`, or `C += alpha·A·B` if `accumulate`, with A [m, k], B [k, n] and C [m, n]. Without `accumulate` the old content of C
/// is not read. Uses the current rayon pool if `parallel`, else the calling thread alone; the bits are the same.
///
/// # Panics
/// If the shapes do not fit each other or a view reaches beyond its data: the caller's mistake, not the user's.
pub fn matmul<F: GemmFloat, B: Operand<F>>(c: MatMut<F>, alpha: F, a: MatRef<F>, b: MatRef<B>, accumulate: bool, parallel: bool) {
    let (m, n, k) = (c.rows, c.cols, a.cols);
    assert!(
        (a.rows, b.rows, b.cols) == (m, k, n),
        "matmul: A [{}, {k}] · B [{}, {}] does not give C [{m}, {n}]",
        a.rows,
        b.rows,
        b.cols
    );
    a.assert_in_bounds("A");
    b.assert_in_bounds("B");
    MatRef { data: &*c.data, rows: m, cols: n, row_stride: c.row_stride, col_stride: 1 }.assert_in_bounds("C");
    assert!(m <= 1 || c.row_stride >= n, "matmul: the rows of C [{m}, {n}] overlap at a row stride of {}", c.row_stride);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.data.chunks_mut(c.row_stride.max(n)).take(m).for_each(|row| row[..n].fill(F::zero()));
        }
        return;
    }
    B::product(c, alpha, a, b, accumulate, parallel);
}

impl private::Product<f64> for f64 {
    fn product(c: MatMut<f64>, alpha: f64, a: MatRef<f64>, b: MatRef<f64>, accumulate: bool, parallel: bool) {
        fallback::product(c, alpha, a, b, accumulate, parallel);
    }
}

impl<B: Stored> private::Product<f32> for B {
    fn product(c: MatMut<f32>, alpha: f32, a: MatRef<f32>, b: MatRef<B>, accumulate: bool, parallel: bool) {
        Path::detect().product(c, alpha, a, b, accumulate, parallel);
    }
}

/// The instruction set that an `f32` product runs on.
#[derive(Clone, Copy, Debug)]
enum Path {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Fallback,
}

impl Path {
    /// The paths of this processor, the fastest first. The detection is cached by the standard library.
    fn available() -> impl Iterator<Item = Path> {
        #[cfg(target_arch = "x86_64")]
        let own = [avx512::Avx512::detect().map(Path::Avx512), avx2::Avx2::detect().map(Path::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let own: [Option<Path>; 0] = [];
        own.into_iter().flatten().chain([Path::Fallback])
    }

    fn detect() -> Path {
        Path::available().next().unwrap_or(Path::Fallback)
    }

    fn product<B: Stored>(self, c: MatMut<f32>, alpha: f32, a: MatRef<f32>, b: MatRef<B>, accumulate: bool, parallel: bool) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512(isa) => blocked::product(isa, c, alpha, a, b, accumulate, parallel),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2(isa) => blocked::product(isa, c, alpha, a, b, accumulate, parallel),
            Path::Fallback => fallback::widened(c, alpha, a, b, accumulate, parallel),
        }
    }
}
