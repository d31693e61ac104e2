//! The loops around the register tile.
//!
//! Threads take blocks of C, as large as leaves work for all. Within a block, the sum over k is cut into blocks too: so many terms of all
//! the block's columns of B are packed into panels of [`Isa::NR`] columns, which stay in the level-2 cache while the rows of A pass over
//! them, [`Isa::MR`] at a time. Each thread packs for itself: what it has just written is in its own cache, and nobody waits. A row-major A
//! is read where it lies; any other is packed, some panels at a time.

use crate::cpu::memory::Memory;

use super::kernel::{Block, Isa, Tile};
use super::pack::{Pack, Panels};
use super::stored::Stored;
use super::{MatMut, MatRef, skinny};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

/// Most terms that are summed before they go to C, and most columns of a block: so much of B, 512 KiB, stays in a level-2 cache of 1 MiB.
/// A packed A gets wider blocks of fewer terms, so that each packed element is used more often.
const SIZES: (usize, usize) = (512, 256);
const SIZES_PACKED: (usize, usize) = (256, 512);
/// Rows of C below which a row-major B is read where it lies: so few uses do not repay packing.
const UNPACKED_ROWS: usize = 128;
/// Terms and columns up to which a column-major A is read where it lies.
const UNPACKED_A: usize = 128;
/// Panels of A that are packed at a time, to stay in the level-2 cache too.
const A_TOGETHER: usize = 16;
/// Elements of a cache line.
const LINE: usize = 16;

/// Memory of one thread, kept from one product to the next.
pub(super) type Buffer = Cell<Memory<f32>>;

thread_local! {
    static A_BUFFER: Buffer = Buffer::default();
    static B_BUFFER: Buffer = Buffer::default();
}

/// `C = alpha·A·B` or `C += alpha·A·B`. The views must be in bounds and not empty.
pub(super) fn product<I: Isa, B: Stored>(
    isa: I,
    c: MatMut<f32>,
    alpha: f32,
    a: MatRef<f32>,
    b: MatRef<B>,
    accumulate: bool,
    parallel: bool,
) {
    if skinny::takes(a, b) {
        return skinny::product(isa, c, alpha, a, b, accumulate, parallel);
    }
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let a_in_place = a.col_stride == 1 || (a.row_stride == 1 && a.cols <= UNPACKED_A && c.cols <= UNPACKED_A);
    let (k_block, col_block) = if a.col_stride == 1 { SIZES } else { SIZES_PACKED };
    let (rows, cols) = block_shape::<I>(c.rows, c.cols, col_block, threads, a_in_place);
    let blocks = Block::cut(c, rows, cols);
    let run = |(row, col, mut c): (usize, usize, Block)| {
        let (a, b) = (a.row_range(row, c.rows()), b.col_range(col, c.cols()));
        block_product(isa, &mut c, alpha, (a, a_in_place), b, k_block, accumulate);
    };
    if threads > 1 {
        blocks.into_par_iter().with_max_len(1).for_each(run);
    } else {
        blocks.into_iter().for_each(run);
    }
}

/// Rows and columns of the blocks that threads take: at least two for each thread, but large, for each packs its B anew, and its A unless
/// it is read in place.
fn block_shape<I: Isa>(m: usize, n: usize, most_cols: usize, threads: usize, a_in_place: bool) -> (usize, usize) {
    let (mut rows, mut cols) = (m, n.div_ceil(n.div_ceil(most_cols)).next_multiple_of(I::NR));
    let wanted = if threads > 1 { 2 * threads } else { 1 };
    let slender = if a_in_place { 8 } else { 1 };
    while m.div_ceil(rows) * n.div_ceil(cols) < wanted && (rows > I::MR || cols > I::NR) {
        if rows > I::MR && (rows >= slender * cols || cols <= I::NR) {
            rows = (rows / 2).next_multiple_of(I::MR);
        } else {
            cols = (cols / 2).next_multiple_of(I::NR);
        }
    }
    (rows, cols)
}

/// One block of C. The bits depend on `k_block`, but not on how C was cut nor on what is packed.
fn block_product<I: Isa, B: Stored>(
    isa: I,
    c: &mut Block,
    alpha: f32,
    (a, a_in_place): (MatRef<f32>, bool),
    b: MatRef<B>,
    k_block: usize,
    accumulate: bool,
) {
    let panels = Panels::new(c.rows(), I::MR);
    let b_in_place = B::as_f32(b).filter(|b| b.col_stride == 1 && c.rows() <= UNPACKED_ROWS);
    let together = if a_in_place { panels.count } else { A_TOGETHER };
    for ks in k_blocks(a.cols, k_block) {
        let packed_cols = if b_in_place.is_some() { 0 } else { c.cols().next_multiple_of(I::NR) };
        with_buffer(&B_BUFFER, packed_cols * ks.len(), |packed_b| {
            if b_in_place.is_none() {
                pack_columns(isa, b.row_range(ks.start, ks.len()), packed_b);
            }
            with_buffer(&A_BUFFER, if a_in_place { 0 } else { A_TOGETHER * panel_stride::<I>(&ks) }, |packed_a| {
                for first in (0..panels.count).step_by(together) {
                    let group = first..panels.count.min(first + together);
                    if !a_in_place {
                        let start = panels.start(first);
                        let rows = panels.start(group.end) - start;
                        pack_rows(isa, a.row_range(start, rows), panels.skip(group.clone()), ks.clone(), packed_a);
                    }
                    for panel in group {
                        let rows = panels.rows(panel);
                        let (a_panel, a_row, a_col) = if a_in_place {
                            (a.from(rows.start, ks.start), a.row_stride, a.col_stride)
                        } else {
                            (&packed_a[(panel - first) * panel_stride::<I>(&ks)..], 1, I::MR)
                        };
                        for (t, col) in (0..c.cols()).step_by(I::NR).enumerate() {
                            let next_row = rows.end + t;
                            let next = a.col_stride == 1 && t < I::MR && next_row < c.rows();
                            isa.tile(Tile {
                                rows: rows.len(),
                                cols: I::NR.min(c.cols() - col),
                                k: ks.len(),
                                a: a_panel,
                                a_row,
                                a_col,
                                b: b_in_place.map_or_else(|| &packed_b[col * ks.len()..], |b| b.from(ks.start, col)),
                                b_row: b_in_place.map_or(I::NR, |b| b.row_stride),
                                at: (rows.start, col),
                                c,
                                alpha,
                                accumulate: accumulate || ks.start > 0,
                                ahead: if next { a.from(next_row, ks.start) } else { &[] },
                            });
                        }
                    }
                }
            });
        });
    }
}

/// Cuts 0..k into blocks of nearly equal length, a multiple of 8 but for the last.
fn k_blocks(k: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let length = k.div_ceil(k.div_ceil(most)).next_multiple_of(8);
    (0..k).step_by(length).map(move |start| start..k.min(start + length))
}

/// Packs columns of B into panels of [`Isa::NR`]: element (p, j) of a panel goes to `p * NR + j`. What lies beyond the last column is left
/// as it was.
fn pack_columns<I: Isa, B: Stored>(isa: I, b: MatRef<B>, packed: &mut [f32]) {
    let panel_cols = |panel: usize| panel * I::NR..b.cols.min((panel + 1) * I::NR);
    let length = I::NR * b.rows;
    if b.row_stride == 1 {
        for (panel, packed) in packed.chunks_exact_mut(length).enumerate() {
            let cols = panel_cols(panel);
            isa.transpose(b.rows, cols.len(), b.from(0, cols.start), b.col_stride, packed, I::NR);
        }
        return;
    }
    if let Some(b) = B::as_f32(b).filter(|b| b.col_stride == 1) {
        let panels = Panels { count: b.cols.div_ceil(I::NR), height: I::NR, higher: 0 };
        let (rows, cols) = (b.rows, b.cols);
        isa.pack(Pack { rows, cols, src: b.data, src_stride: b.row_stride, panels, width: I::NR, dst: packed, dst_stride: length });
        return;
    }
    for (panel, packed) in packed.chunks_exact_mut(length).enumerate() {
        for (p, row) in packed.chunks_exact_mut(I::NR).enumerate() {
            for (x, j) in row.iter_mut().zip(panel_cols(panel)) {
                *x = b.from(p, j)[0].widen();
            }
        }
    }
}

/// Elements from one packed panel of A to the next: a line more than it holds, for panels at multiples of a page would share cache sets.
fn panel_stride<I: Isa>(ks: &Range<usize>) -> usize {
    (I::MR * ks.len()).next_multiple_of(LINE) + LINE
}

/// Packs the terms `ks` of a group of panels of A: row i of a panel, term p, goes to `p * MR + i`.
fn pack_rows<I: Isa>(isa: I, a: MatRef<f32>, panels: Panels, ks: Range<usize>, packed: &mut [f32]) {
    let dst_stride = panel_stride::<I>(&ks);
    if a.row_stride == 1 {
        let (rows, cols) = (ks.len(), a.rows);
        let src = a.from(0, ks.start);
        isa.pack(Pack { rows, cols, src, src_stride: a.col_stride, panels, width: I::MR, dst: packed, dst_stride });
        return;
    }
    for (panel, packed) in packed.chunks_exact_mut(dst_stride).take(panels.count).enumerate() {
        for (column, k) in packed.chunks_exact_mut(I::MR).zip(ks.clone()) {
            for (x, i) in column.iter_mut().zip(panels.rows(panel)) {
                *x = a.from(i, k)[0];
            }
        }
    }
}

/// Lends this thread's buffer, aligned to cache lines, content arbitrary. A thread that waits for its pool may start another product
/// meanwhile, which finds the buffer gone and makes itself a new one.
pub(super) fn with_buffer<R>(key: &'static LocalKey<Buffer>, length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = key.take();
    if buffer.len() < length + LINE {
        buffer = Memory::paged(length + LINE);
    }
    let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>());
    let result = f(&mut buffer[start..start + length]);
    key.set(buffer);
    result
}
