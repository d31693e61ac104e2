//! The innermost loops, written once over a vector type: the register tile and the dot products of few rows.
//!
//! `avx512.rs` and `avx2.rs` supply the vectors, and `isa.rs` compiles these functions with their instruction set switched on; the
//! functions are `#[inline(always)]` for that reason. [`Isa`]'s methods are the safe way in: they check every bound before the first pointer moves.
#![allow(unsafe_code)]
// The registers are arrays indexed by constants; iterators over several of them at once would hide the formula.
#![allow(clippy::needless_range_loop)]

use super::pack::Pack;
use super::stored::Stored;
use super::{MatMut, extent};
use std::marker::PhantomData;

/// A vector of `f32` of one instruction set.
pub(super) trait Simd: Copy {
    /// The register.
    type V: Copy;
    /// Which lanes a masked load or store touches.
    type Mask: Copy;
    /// Elements of a register.
    const LANES: usize;

    // SAFETY, for all of them: the processor must have the instruction set, and pointers must be good for the lanes that are touched.
    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `lanes` of a register.
    unsafe fn mask(lanes: usize) -> Self::Mask;
    /// Lanes outside the mask read as zero; their memory is not touched.
    unsafe fn load_masked(p: *const f32, mask: Self::Mask) -> Self::V;
    /// The bits of bf16 as the upper halves of f32.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// The same, as [`Simd::load_masked`].
    unsafe fn load_bf16_masked(p: *const u16, mask: Self::Mask) -> Self::V;
    unsafe fn store_masked(p: *mut f32, mask: Self::Mask, v: Self::V);
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of the lanes.
    unsafe fn sum(v: Self::V) -> f32;
    /// Transposes LANES × LANES elements: `dst[i * dst_stride + j] = src[j * src_stride + i]`.
    unsafe fn transpose<B: Stored>(src: *const B, src_stride: usize, dst: *mut f32, dst_stride: usize);
}

/// An instruction set that the processor was found to have.
pub(super) trait Isa: Copy + Send + Sync {
    /// Rows of the largest register tile.
    const MR: usize;
    /// Columns of the largest register tile: two vectors.
    const NR: usize;

    /// Computes one tile of C.
    fn tile(self, tile: Tile);
    /// `out[r * out_stride + j] = Σ_k a[r * a_stride + k] · b[j * b_stride + k]` for up to [`DOT_ROWS`] rows and any number of columns.
    fn dots<B: Stored>(self, dots: Dots<B>);
    /// Copies into panels.
    fn pack(self, pack: Pack);
    /// `dst[i * dst_stride + j] = src[j * src_stride + i]` for i below `rows` and j below `cols`.
    fn transpose<B: Stored>(self, rows: usize, cols: usize, src: &[B], src_stride: usize, dst: &mut [f32], dst_stride: usize);
}

/// A rectangle of C that belongs to one thread.
pub(super) struct Block<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a block is an exclusive borrow of its elements, which no other block holds.
unsafe impl Send for Block<'_> {}

impl<'a> Block<'a> {
    /// Cuts C into blocks of at most `rows` × `cols`, each with the row and column of its first element. Panics if C reaches beyond its
    /// data or its rows overlap.
    pub fn cut(c: MatMut<'a, f32>, rows: usize, cols: usize) -> Vec<(usize, usize, Self)> {
        let MatMut { data, rows: m, cols: n, row_stride } = c;
        assert!(extent(m, n, row_stride, 1) <= data.len() && (m <= 1 || row_stride >= n));
        let data = data.as_mut_ptr();
        let starts = (0..m).step_by(rows).flat_map(|row| (0..n).step_by(cols).map(move |col| (row, col)));
        starts
            .map(|(row, col)| {
                let data = data.wrapping_add(row * row_stride + col);
                (row, col, Self { data, rows: rows.min(m - row), cols: cols.min(n - col), row_stride, borrow: PhantomData })
            })
            .collect()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// One tile: `C = alpha·A·B` or `C += alpha·A·B` with C `rows` × `cols`, at most [`Isa::MR`] × [`Isa::NR`].
pub(super) struct Tile<'a, 'c> {
    pub rows: usize,
    pub cols: usize,
    pub k: usize,
    /// Element (i, p) at `a[i * a_row + p * a_col]`.
    pub a: &'a [f32],
    pub a_row: usize,
    pub a_col: usize,
    /// Element (p, j) at `b[p * b_row + j]`.
    pub b: &'a [f32],
    pub b_row: usize,
    /// The rectangle of C that the tile lies in.
    pub c: &'a mut Block<'c>,
    /// Row and column of the tile in it.
    pub at: (usize, usize),
    pub alpha: f32,
    pub accumulate: bool,
    /// What later tiles will read: asked for, a line of each every [`STEPS`] terms.
    pub ahead: &'a [f32],
}

/// Terms between two prefetches. Many at once would take the few line-fill buffers from the loads of the loop.
const STEPS: usize = 8;

/// A [`Tile`] whose bounds were checked.
pub(super) struct RawTile {
    k: usize,
    a: *const f32,
    a_row: usize,
    a_col: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    last_lanes: usize,
    alpha: f32,
    accumulate: bool,
    ahead: *const f32,
}

impl Tile<'_, '_> {
    /// Checks the bounds, and that the tile is no larger than `mr` × `2 * lanes`.
    #[inline]
    pub fn check(self, mr: usize, lanes: usize) -> RawTile {
        let Tile { rows, cols, k, a, a_row, a_col, b, b_row, c, at, alpha, accumulate, ahead } = self;
        assert!((1..=mr).contains(&rows) && (1..=2 * lanes).contains(&cols) && k > 0);
        assert!((rows - 1) * a_row + (k - 1) * a_col < a.len());
        assert!((k - 1) * b_row + cols <= b.len());
        assert!(at.0 + rows <= c.rows && at.1 + cols <= c.cols);
        RawTile {
            k,
            a: a.as_ptr(),
            a_row,
            a_col,
            b: b.as_ptr(),
            b_row,
            c: c.data.wrapping_add(at.0 * c.row_stride + at.1),
            c_row: c.row_stride,
            last_lanes: (cols - 1) % lanes + 1,
            alpha,
            accumulate,
            ahead: ahead.as_ptr(),
        }
    }
}

/// The register tile: `ROWS` × `VECS` accumulators, and for each p one row of B against `ROWS` broadcast elements of A. With `FULL` the
/// last vector of each row is whole, else `last_lanes` of it exist.
///
/// # Safety
/// The processor must have the instruction set; the tile must have `ROWS` rows and `VECS` vectors of columns.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const ROWS: usize, const VECS: usize, const FULL: bool>(t: &RawTile) {
    // SAFETY: `Tile::check` has found each element of the tile, its rows of A and its columns of B within their slices; with `FULL`
    // off, the lanes beyond them are masked out.
    unsafe {
        let mask = S::mask(t.last_lanes);
        let mut sums = [[S::zero(); VECS]; ROWS];
        // Four rows share a base pointer, so that all of A's addresses fit into the general registers; the compiler would derive them
        // from one pointer with an addition for each row if it could see through them.
        let mut bases = [t.a; 4];
        for (q, base) in bases.iter_mut().enumerate() {
            *base = std::hint::black_box(t.a.wrapping_add(4 * q * t.a_row));
        }
        let mut b = t.b;
        let (mut ahead, mut c) = (t.ahead, t.c);
        let mut left = t.k;
        while left > 0 {
            for v in 0..VECS {
                prefetch(c.wrapping_add(v * S::LANES));
            }
            c = c.wrapping_add(t.c_row);
            prefetch_l2(ahead);
            ahead = ahead.wrapping_add(16);
            let steps = left.min(STEPS);
            left -= steps;
            for _ in 0..steps {
                let mut row = [S::zero(); VECS];
                for v in 0..VECS {
                    let p = b.wrapping_add(v * S::LANES);
                    row[v] = if FULL || v + 1 < VECS { S::load(p) } else { S::load_masked(p, mask) };
                }
                for r in 0..ROWS {
                    let x = S::splat(*bases[r / 4].wrapping_add(r % 4 * t.a_row));
                    for v in 0..VECS {
                        sums[r][v] = S::fma(x, row[v], sums[r][v]);
                    }
                }
                b = b.wrapping_add(t.b_row);
                for base in &mut bases {
                    *base = base.wrapping_add(t.a_col);
                }
            }
        }
        let alpha = S::splat(t.alpha);
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let p = t.c.wrapping_add(r * t.c_row + v * S::LANES);
                if FULL || v + 1 < VECS {
                    S::store(p, if t.accumulate { S::fma(alpha, sum, S::load(p)) } else { S::mul(alpha, sum) });
                } else {
                    let old = S::load_masked(p, mask);
                    S::store_masked(p, mask, if t.accumulate { S::fma(alpha, sum, old) } else { S::mul(alpha, sum) });
                }
            }
        }
    }
}

/// Asks for a line to come to the level-2 cache.
#[inline(always)]
fn prefetch_l2(p: *const f32) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
}

/// Asks for a line to come to the level-1 cache.
#[inline(always)]
pub(super) fn prefetch<T>(p: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
}

/// Rows that [`Isa::dots`] takes at once.
pub(super) const DOT_ROWS: usize = 4;
/// Columns that the loop of [`Isa::dots`] takes at once, while it asks for the next ones.
const DOT_COLS: usize = 4;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Dot products of few rows with the rows of a matrix, both contiguous over k.
pub(super) struct Dots<'a, B> {
    pub rows: usize,
    pub cols: usize,
    pub k: usize,
    pub a: &'a [f32],
    pub a_stride: usize,
    pub b: &'a [B],
    pub b_stride: usize,
    pub out: &'a mut [f32],
    pub out_stride: usize,
}

impl<B> Dots<'_, B> {
    /// Panics if a bound is exceeded.
    #[inline]
    pub fn check(&self) {
        assert!((1..=DOT_ROWS).contains(&self.rows) && self.cols > 0 && self.k > 0);
        assert!((self.rows - 1) * self.a_stride + self.k <= self.a.len());
        assert!((self.cols - 1) * self.b_stride + self.k <= self.b.len());
        assert!((self.rows - 1) * self.out_stride + self.cols <= self.out.len());
    }
}

/// The dot products of `ROWS` rows.
///
/// # Safety
/// The processor must have the instruction set; `d` must have passed its check and have `ROWS` rows.
#[inline(always)]
pub(super) unsafe fn dots<S: Simd, B: Stored, const ROWS: usize>(d: &mut Dots<B>) {
    let whole = d.cols / DOT_COLS * DOT_COLS;
    for j in (0..whole).step_by(DOT_COLS) {
        // SAFETY: columns j to j + DOT_COLS exist.
        unsafe { dot_block::<S, B, ROWS, DOT_COLS>(d, j) }
    }
    for j in whole..d.cols {
        // SAFETY: column j exists.
        unsafe { dot_block::<S, B, ROWS, 1>(d, j) }
    }
}

/// # Safety
/// As [`dots`], and columns `j` to `j + COLS` must exist.
#[inline(always)]
unsafe fn dot_block<S: Simd, B: Stored, const ROWS: usize, const COLS: usize>(d: &mut Dots<B>, j: usize) {
    // SAFETY: `Dots::check` has found k elements of each row of A and B within their slices; the masked load stops at the k-th.
    unsafe {
        let (a, b) = (d.a.as_ptr(), d.b.as_ptr().wrapping_add(j * d.b_stride));
        let mut sums = [[S::zero(); COLS]; ROWS];
        let whole = d.k / S::LANES * S::LANES;
        for p in (0..whole).step_by(S::LANES) {
            let mut y = [S::zero(); COLS];
            for c in 0..COLS {
                if p.is_multiple_of(LINE / size_of::<B>()) {
                    prefetch(b.wrapping_add((COLS + c) * d.b_stride + p));
                }
                y[c] = B::load::<S>(b.wrapping_add(c * d.b_stride + p));
            }
            for r in 0..ROWS {
                let x = S::load(a.wrapping_add(r * d.a_stride + p));
                for c in 0..COLS {
                    sums[r][c] = S::fma(x, y[c], sums[r][c]);
                }
            }
        }
        if whole < d.k {
            let mask = S::mask(d.k - whole);
            for c in 0..COLS {
                let y = B::load_masked::<S>(b.wrapping_add(c * d.b_stride + whole), mask);
                for r in 0..ROWS {
                    let x = S::load_masked(a.wrapping_add(r * d.a_stride + whole), mask);
                    sums[r][c] = S::fma(x, y, sums[r][c]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (c, &sum) in sums.iter().enumerate() {
                *d.out.get_unchecked_mut(r * d.out_stride + j + c) = S::sum(sum);
            }
        }
    }
}

/// [`tile`] of one size, compiled for one instruction set.
pub(super) type TileFn = unsafe fn(&RawTile);
