//! Products with few rows, as in decoding: bound by the reading of B, so that B is read once, where it lies.

use super::blocked::{Buffer, with_buffer};
use super::kernel::{Block, DOT_ROWS, Dots, Isa, Tile};
use super::stored::Stored;
use super::{MatMut, MatRef};
use rayon::prelude::*;

/// Most rows of A that this path takes.
const MAX_ROWS: usize = 16;
/// Columns of C that a thread takes at a time.
const COLS: usize = 64;
/// Rows of B that pass by at a time when they lie along memory: so many short runs, one below the other, that the caches hold.
const K_BLOCK: usize = 64;

thread_local! {
    static BUFFER: Buffer = Buffer::default();
}

/// Whether this path takes a product: few rows, and B readable in vectors along its columns or, with A, along k.
pub(super) fn takes<B: Stored>(a: MatRef<f32>, b: MatRef<B>) -> bool {
    let along_columns = b.col_stride == 1 && B::as_f32(b).is_some();
    a.rows <= MAX_ROWS && (along_columns || (b.row_stride == 1 && a.col_stride == 1))
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
    // The threads write whole blocks of columns, one after the other, so that each has its own piece of memory.
    with_buffer(&BUFFER, c.rows * c.cols.next_multiple_of(COLS), |blocks| {
        for_each_chunk(blocks, c.rows * COLS, parallel, |i, out| {
            let first = i * COLS;
            column_block(isa, a, b.col_range(first, COLS.min(c.cols - first)), out);
        });
        for (i, row) in c.data.chunks_mut(c.row_stride.max(c.cols)).take(c.rows).enumerate() {
            for (row, block) in row[..c.cols].chunks_mut(COLS).zip(blocks.chunks_exact(c.rows * COLS)) {
                for (x, &sum) in row.iter_mut().zip(&block[i * COLS..]) {
                    *x = if accumulate { alpha * sum + *x } else { alpha * sum };
                }
            }
        }
    });
}

/// `out[i * COLS + j] = Σ_p a(i, p) · b(p, j)` for the columns of a block.
fn column_block<I: Isa, B: Stored>(isa: I, a: MatRef<f32>, b: MatRef<B>, out: &mut [f32]) {
    if b.row_stride == 1 && a.col_stride == 1 {
        for row in (0..a.rows).step_by(DOT_ROWS) {
            isa.dots(Dots {
                rows: DOT_ROWS.min(a.rows - row),
                cols: b.cols,
                k: a.cols,
                a: a.from(row, 0),
                a_stride: a.row_stride,
                b: b.data,
                b_stride: b.col_stride,
                out: &mut out[row * COLS..],
                out_stride: COLS,
            });
        }
        return;
    }
    let mut whole = Block::cut(MatMut::new(out, a.rows, COLS), a.rows, COLS);
    let (Some((_, _, c)), Some(b)) = (whole.first_mut(), B::as_f32(b)) else { return };
    for p in (0..a.cols).step_by(K_BLOCK) {
        for row in (0..a.rows).step_by(I::MR) {
            for col in (0..b.cols).step_by(I::NR) {
                isa.tile(Tile {
                    rows: I::MR.min(a.rows - row),
                    cols: I::NR.min(b.cols - col),
                    k: K_BLOCK.min(a.cols - p),
                    a: a.from(row, p),
                    a_row: a.row_stride,
                    a_col: a.col_stride,
                    b: b.from(p, col),
                    b_row: b.row_stride,
                    c,
                    at: (row, col),
                    alpha: 1.0,
                    accumulate: p > 0,
                    ahead: &[],
                });
            }
        }
    }
}

/// Calls `f` with each chunk of `length` and its number, on the rayon pool if `parallel`.
fn for_each_chunk(data: &mut [f32], length: usize, parallel: bool, f: impl Fn(usize, &mut [f32]) + Sync) {
    if parallel && data.len() > length {
        data.par_chunks_mut(length).enumerate().with_max_len(1).for_each(|(i, chunk)| f(i, chunk));
    } else {
        data.chunks_mut(length).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}
