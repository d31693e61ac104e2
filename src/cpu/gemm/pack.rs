//! Copies of operands into panels, in the order in which the register tile reads them; over a vector type, as [`super::kernel`].
#![allow(unsafe_code)]

use super::kernel::{Simd, prefetch};
use super::stored::Stored;
use std::ops::Range;

/// Rows cut into panels of nearly equal height, at most MR.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub count: usize,
    pub height: usize,
    /// So many of the first panels are one row higher.
    pub higher: usize,
}

impl Panels {
    pub fn new(rows: usize, mr: usize) -> Self {
        let count = rows.div_ceil(mr);
        Self { count, height: rows / count, higher: rows % count }
    }

    pub fn start(&self, panel: usize) -> usize {
        panel * self.height + panel.min(self.higher)
    }

    pub fn rows(&self, panel: usize) -> Range<usize> {
        self.start(panel)..self.start(panel + 1)
    }

    /// Some of the panels, counted from the first of them.
    pub fn skip(&self, group: Range<usize>) -> Self {
        Self { count: group.len(), height: self.height, higher: self.higher.saturating_sub(group.start).min(group.len()) }
    }
}

/// A copy of `rows` × `cols` elements into panels of columns: element (p, j) of a panel goes to `dst[panel * dst_stride + p * width + j]`.
pub(super) struct Pack<'a> {
    pub rows: usize,
    pub cols: usize,
    pub src: &'a [f32],
    pub src_stride: usize,
    /// Where the panels start among the columns. None is longer than `width`.
    pub panels: Panels,
    pub width: usize,
    pub dst: &'a mut [f32],
    pub dst_stride: usize,
}

impl Pack<'_> {
    /// Panics if a bound is exceeded or a panel would take more than two vectors.
    #[inline]
    pub fn check(&self, lanes: usize) {
        let Self { rows, cols, panels, width, dst_stride, .. } = *self;
        assert!(rows > 0 && panels.count > 0 && panels.start(panels.count - 1) < cols && (1..=2 * lanes).contains(&width));
        assert!((rows - 1) * self.src_stride + cols <= self.src.len());
        assert!((panels.count - 1) * dst_stride + rows * width <= self.dst.len());
    }
}

/// Rows ahead of the reading that [`pack`] asks for: their distance hides them from the processor's own prefetching.
const ROWS_AHEAD: usize = 3;

/// The copy of [`Pack`].
///
/// # Safety
/// The processor must have the instruction set; `t` must have passed its check.
#[inline(always)]
pub(super) unsafe fn pack<S: Simd>(t: &mut Pack) {
    let dst = t.dst.as_mut_ptr();
    for p in 0..t.rows {
        let src = t.src.as_ptr().wrapping_add(p * t.src_stride);
        for panel in 0..t.panels.count {
            let start = t.panels.start(panel);
            let (src, dst) = (src.wrapping_add(start), dst.wrapping_add(panel * t.dst_stride + p * t.width));
            let cols = t.width.min(t.cols - start);
            prefetch(src.wrapping_add(ROWS_AHEAD * t.src_stride));
            // SAFETY: `Pack::check` has found all rows and columns within the source, and `width` elements for each row of each panel
            // within the destination; the masks stop at the last of `cols`, which is at most `width`.
            unsafe {
                let mask = S::mask(cols.min(S::LANES));
                S::store_masked(dst, mask, S::load_masked(src, mask));
                if cols > S::LANES {
                    prefetch(src.wrapping_add(ROWS_AHEAD * t.src_stride + S::LANES));
                    let mask = S::mask(cols - S::LANES);
                    let (src, dst) = (src.wrapping_add(S::LANES), dst.wrapping_add(S::LANES));
                    S::store_masked(dst, mask, S::load_masked(src, mask));
                }
            }
        }
    }
}

/// Elements ahead of the reading that [`transpose`] asks for.
const AHEAD: usize = 64;

/// The transposing copy of [`Isa::transpose`].
///
/// # Safety
/// The processor must have the instruction set.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd, B: Stored>(
    rows: usize,
    cols: usize,
    src: &[B],
    src_stride: usize,
    dst: &mut [f32],
    dst_stride: usize,
) {
    assert!(rows > 0 && cols > 0);
    assert!((cols - 1) * src_stride + rows <= src.len() && (rows - 1) * dst_stride + cols <= dst.len());
    for i in (0..rows).step_by(S::LANES) {
        for j in (0..cols).step_by(S::LANES) {
            for j in j..cols.min(j + S::LANES) {
                prefetch(src.as_ptr().wrapping_add(j * src_stride + i + AHEAD));
            }
            if i + S::LANES <= rows && j + S::LANES <= cols {
                // SAFETY: the block lies within both matrices, which the asserts have found within their slices.
                unsafe {
                    let src = src.as_ptr().add(j * src_stride + i);
                    S::transpose::<B>(src, src_stride, dst.as_mut_ptr().add(i * dst_stride + j), dst_stride);
                }
            } else {
                for i in i..rows.min(i + S::LANES) {
                    for j in j..cols.min(j + S::LANES) {
                        dst[i * dst_stride + j] = src[j * src_stride + i].widen();
                    }
                }
            }
        }
    }
}
