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
const BAND_ROWS: RangeInclusive<usize> = 128..=512;
/// Most elements of packed B at a time.
const PACKED_B: usize = 1 << 25;

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
            for_each_chunk(packed, I::NR * k, parallel, |p, panel| {
                let first = p * I::NR;
                pack_columns(isa, b.col_range(col + first, I::NR.min(cols - first)), panel);
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

/// The rows of a band of C, against packed B.
fn band_product<I: Isa>(isa: I, c: MatMut<f32>, alpha: f32, a: MatRef<f32>, packed_b: &[f32], accumulate: bool) {
    let k = a.cols;
    let panels = c.rows.div_ceil(I::MR);
    let rows_of = |panel: usize| panel * c.rows / panels..(panel + 1) * c.rows / panels;
    let in_place = a.col_stride == 1;
    for ks in k_blocks(k) {
        with_buffer(&A_BUFFER, if in_place { 0 } else { panels * I::MR * ks.len() }, |packed_a| {
            if !in_place {
                pack_rows::<I>(a, ks.clone(), packed_a);
            }
            for first_col in (0..c.cols).step_by(COL_BLOCK) {
                let cols = COL_BLOCK.min(c.cols - first_col);
                let tiles = cols.div_ceil(I::NR);
                for panel in 0..panels {
                    let rows = rows_of(panel);
                    let (a_panel, a_row, a_col) = if in_place {
                        (a.from(rows.start, ks.start), a.row_stride, 1)
                    } else {
                        (&packed_a[panel * I::MR * ks.len()..], 1, I::MR)
                    };
                    for t in 0..tiles {
                        if in_place && panel + 1 < panels {
                            let next = rows_of(panel + 1);
                            for i in next.start + t * next.len() / tiles..next.start + (t + 1) * next.len() / tiles {
                                prefetch_slice(&a.from(i, ks.start)[..ks.len()]);
                            }
                        }
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

/// Packs up to [`Isa::NR`] columns of B: element (p, j) goes to `p * NR + j`. What lies beyond the last column is left as it was.
fn pack_columns<I: Isa>(isa: I, b: MatRef<f32>, panel: &mut [f32]) {
    if b.row_stride == 1 {
        isa.transpose(b.rows, b.cols, b.data, b.col_stride, panel, I::NR);
    } else if b.col_stride == 1 {
        for (p, row) in panel.chunks_exact_mut(I::NR).enumerate() {
            row[..b.cols].copy_from_slice(&b.from(p, 0)[..b.cols]);
        }
    } else {
        for (p, row) in panel.chunks_exact_mut(I::NR).enumerate() {
            for (j, x) in row[..b.cols].iter_mut().enumerate() {
                *x = b.from(p, j)[0];
            }
        }
    }
}

/// Packs the terms `ks` of all rows of A into panels, nearly equal in height: row i of a panel, term p, goes to `p * MR + i`.
fn pack_rows<I: Isa>(a: MatRef<f32>, ks: Range<usize>, packed: &mut [f32]) {
    let panels = a.rows.div_ceil(I::MR);
    let length = I::MR * ks.len();
    for group in (0..panels).step_by(4) {
        for (p, k) in ks.clone().enumerate() {
            for panel in group..panels.min(group + 4) {
                let column = &mut packed[panel * length + p * I::MR..][..I::MR];
                let source = a.from(panel * a.rows / panels, k);
                if a.row_stride == 1 && source.len() >= I::MR {
                    // Whole columns at once: the rows beyond the panel's last are never read.
                    column.copy_from_slice(&source[..I::MR]);
                } else {
                    for (i, x) in source.iter().step_by(a.row_stride).take(I::MR).enumerate() {
                        column[i] = *x;
                    }
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
    const LINE: usize = 64;
    let mut buffer = key.take();
    if buffer.len() < length + LINE {
        buffer.resize(length + LINE, 0.0);
    }
    let start = buffer.as_ptr().align_offset(LINE);
    let result = f(&mut buffer[start..start + length]);
    key.set(buffer);
    result
}
