//! The loops around the register tile.
//!
//! B is packed once, by all threads together, into panels of [`Isa::NR`] columns. Then each thread takes bands of rows of C. Within a
//! band, the sum over k is cut into blocks of at most [`K_BLOCK`]; a block of B of `K_BLOCK` × [`COL_BLOCK`] stays in the level-2 cache
//! while the band's rows pass over it, [`Isa::MR`] at a time. A row-major A is read where it lies; any other is packed, a band and a
//! block of k at a time.

use super::kernel::{Isa, Tile, prefetch_slice};
use super::{MatMut, MatRef, skinny};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::{Range, RangeInclusive};
use std::thread::LocalKey;

/// Most terms that a tile sums before it goes to C.
const K_BLOCK: usize = 512;
/// Columns of B that stay in the level-2 cache, `K_BLOCK` rows of them.
const COL_BLOCK: usize = 512;
/// Rows of a band: few enough for all threads to have work, many enough to amortise the reading of B.
const BAND_ROWS: RangeInclusive<usize> = 256..=512;
/// Most elements of packed B at a time.
const PACKED_B: usize = 1 << 25;
/// Panels of B that a thread packs side by side, for longer runs of reading.
const PACKED_TOGETHER: usize = 4;
/// Rows ahead of the reading that packing asks for: their distance hides them from the processor's own prefetching.
const AHEAD: usize = 8;
/// Elements of a cache line.
const LINE: usize = 16;

thread_local! {
    static A_BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static B_BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `C = alpha·A·B` or `C += alpha·A·B`. The views must be in bounds and not empty.
pub(super) fn product<I: Isa>(
    isa: I,
    c: MatMut<f32>,
    alpha: f32,
    a: MatRef<f32>,
    b: MatRef<f32>,
    accumulate: bool,
    parallel: bool,
) {
    if skinny::takes(a, b) {
        return skinny::product(isa, c, alpha, a, b, accumulate, parallel);
    }
    let k = a.cols;
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let band_rows = c.rows.div_ceil(4 * threads).clamp(*BAND_ROWS.start(), *BAND_ROWS.end()).min(c.rows.div_ceil(threads));
    let chunk = (PACKED_B / k / I::NR).max(1) * I::NR;
    for col in (0..c.cols).step_by(chunk) {
        let cols = chunk.min(c.cols - col);
        with_buffer(&B_BUFFER, cols.next_multiple_of(I::NR) * k, |packed| {
            for_each_chunk(packed, PACKED_TOGETHER * I::NR * k, parallel, |i, panels| {
                let first = i * PACKED_TOGETHER * I::NR;
                pack_columns(isa, b.col_range(col + first, (PACKED_TOGETHER * I::NR).min(cols - first)), panels);
            });
            let packed = &*packed;
            for_each_chunk(c.data, band_rows * c.row_stride, parallel, |i, band| {
                let first = i * band_rows;
                if first < c.rows {
                    let a = a.row_range(first, band_rows.min(c.rows - first));
                    let c = MatMut { data: &mut band[col..], rows: a.rows, cols, row_stride: c.row_stride };
                    band_product(isa, c, alpha, a, packed, accumulate);
                }
            });
        });
    }
}

/// Rows cut into panels of nearly equal height, at most MR.
#[derive(Clone, Copy)]
struct Panels {
    count: usize,
    height: usize,
    /// So many of the first panels are one row higher.
    higher: usize,
}

impl Panels {
    fn new(rows: usize, mr: usize) -> Self {
        let count = rows.div_ceil(mr);
        Self { count, height: rows / count, higher: rows % count }
    }

    fn start(&self, panel: usize) -> usize {
        panel * self.height + panel.min(self.higher)
    }

    fn rows(&self, panel: usize) -> Range<usize> {
        self.start(panel)..self.start(panel + 1)
    }
}

/// The rows of a band of C, against packed B.
fn band_product<I: Isa>(isa: I, c: MatMut<f32>, alpha: f32, a: MatRef<f32>, packed_b: &[f32], accumulate: bool) {
    let k = a.cols;
    let panels = Panels::new(c.rows, I::MR);
    let in_place = a.col_stride == 1;
    for ks in k_blocks(k) {
        with_buffer(&A_BUFFER, if in_place { 0 } else { panels.count * panel_stride::<I>(&ks) }, |packed_a| {
            if !in_place {
                pack_rows::<I>(a, panels, ks.clone(), packed_a);
            }
            for first_col in (0..c.cols).step_by(COL_BLOCK) {
                let cols = COL_BLOCK.min(c.cols - first_col);
                let tiles = cols.div_ceil(I::NR);
                for panel in 0..panels.count {
                    let rows = panels.rows(panel);
                    let (a_panel, a_row, a_col) = if in_place {
                        (a.from(rows.start, ks.start), a.row_stride, 1)
                    } else {
                        (&packed_a[panel * panel_stride::<I>(&ks)..], 1, I::MR)
                    };
                    for t in 0..tiles {
                        let row = rows.end + t;
                        let next_a = if in_place && t < I::MR && row < c.rows { a.from(row, ks.start) } else { &[] };
                        let (ncol, nk) =
                            if first_col + COL_BLOCK < c.cols { (first_col + COL_BLOCK, ks.start) } else { (0, ks.end) };
                        let ncol = ncol + t * I::NR;
                        let next_b = if nk < k && ncol < c.cols {
                            let b0 = panel * ks.len() / panels.count;
                            packed_b.get(ncol * k + (nk + b0) * I::NR..).unwrap_or(&[])
                        } else {
                            &[]
                        };
                        let col = first_col + t * I::NR;
                        isa.tile(Tile {
                            rows: rows.len(),
                            cols: I::NR.min(c.cols - col),
                            k: ks.len(),
                            a: a_panel,
                            a_row,
                            a_col,
                            b: &packed_b[col * k + ks.start * I::NR..],
                            b_row: I::NR,
                            c: &mut c.data[rows.start * c.row_stride + col..],
                            c_row: c.row_stride,
                            alpha,
                            accumulate: accumulate || ks.start > 0,
                            ahead: [next_a, next_b],
                        });
                    }
                }
            }
        });
    }
}

/// Cuts 0..k into blocks of nearly equal length, a multiple of 8 but for the last.
fn k_blocks(k: usize) -> impl Iterator<Item = Range<usize>> {
    let length = k.div_ceil(k.div_ceil(K_BLOCK)).next_multiple_of(8);
    (0..k).step_by(length).map(move |start| start..k.min(start + length))
}

/// Packs columns of B into panels of [`Isa::NR`]: element (p, j) of a panel goes to `p * NR + j`. What lies beyond the last column is left
/// as it was.
fn pack_columns<I: Isa>(isa: I, b: MatRef<f32>, packed: &mut [f32]) {
    let panel_cols = |panel: usize| panel * I::NR..b.cols.min((panel + 1) * I::NR);
    let length = I::NR * b.rows;
    if b.row_stride == 1 {
        for (panel, packed) in packed.chunks_exact_mut(length).enumerate() {
            let cols = panel_cols(panel);
            isa.transpose(b.rows, cols.len(), b.from(0, cols.start), b.col_stride, packed, I::NR);
        }
        return;
    }
    for p in 0..b.rows {
        if p + AHEAD < b.rows && b.col_stride == 1 {
            prefetch_slice(&b.from(p + AHEAD, 0)[..b.cols]);
        }
        for panel in 0..b.cols.div_ceil(I::NR) {
            let cols = panel_cols(panel);
            let row = &mut packed[panel * length + p * I::NR..][..I::NR];
            let source = b.from(p, cols.start);
            if b.col_stride == 1 && cols.len() == I::NR {
                row.copy_from_slice(&source[..I::NR]);
            } else {
                for (x, y) in row[..cols.len()].iter_mut().zip(source.iter().step_by(b.col_stride)) {
                    *x = *y;
                }
            }
        }
    }
}

/// Elements from one packed panel of A to the next: a line more than it holds, for panels at multiples of a page would share cache sets.
fn panel_stride<I: Isa>(ks: &Range<usize>) -> usize {
    (I::MR * ks.len()).next_multiple_of(LINE) + LINE
}

/// Packs the terms `ks` of all rows of A into panels: row i of a panel, term p, goes to `p * MR + i`.
fn pack_rows<I: Isa>(a: MatRef<f32>, panels: Panels, ks: Range<usize>, packed: &mut [f32]) {
    let stride = panel_stride::<I>(&ks);
    for (p, k) in ks.clone().enumerate() {
        if k + AHEAD < ks.end && a.row_stride == 1 {
            prefetch_slice(&a.from(0, k + AHEAD)[..a.rows]);
        }
        for panel in 0..panels.count {
            let column = &mut packed[panel * stride + p * I::MR..][..I::MR];
            let source = a.from(panels.start(panel), k);
            if a.row_stride == 1 && source.len() >= I::MR {
                // Whole columns at once: what lies beyond the panel's last row is never read.
                column.copy_from_slice(&source[..I::MR]);
            } else {
                for (x, y) in column.iter_mut().zip(source.iter().step_by(a.row_stride)) {
                    *x = *y;
                }
            }
        }
    }
}

/// Calls `f` with each chunk of `length` and its number, on the rayon pool if `parallel`.
pub(super) fn for_each_chunk(data: &mut [f32], length: usize, parallel: bool, f: impl Fn(usize, &mut [f32]) + Sync) {
    if parallel && data.len() > length {
        data.par_chunks_mut(length).enumerate().for_each(|(i, chunk)| f(i, chunk));
    } else {
        data.chunks_mut(length).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}

/// Lends this thread's buffer, aligned to cache lines, content arbitrary. A thread that waits for its pool may start another product
/// meanwhile, which finds the buffer gone and makes itself a new one.
pub(super) fn with_buffer<R>(key: &'static LocalKey<Cell<Vec<f32>>>, length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = key.take();
    if buffer.len() < length + LINE {
        buffer.resize(length + LINE, 0.0);
    }
    let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>());
    let result = f(&mut buffer[start..start + length]);
    key.set(buffer);
    result
}
