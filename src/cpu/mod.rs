//! The CPU: matrix products, and loops compiled for each instruction set. Threads come from rayon's pool.

pub mod gemm;
pub(crate) mod simd;

pub(crate) use simd::vectorized;

/// Rows that one parallel task takes of a row-wise operation over `cols` columns: about 16 Ki elements.
///
/// It depends on the shape alone. Reductions across rows sum within each task and then add the tasks' sums in order, so that
/// their bits are the same for any number of threads.
pub fn rows_per_task(cols: usize) -> usize {
    (16 * 1024 / cols.max(1)).max(1)
}
