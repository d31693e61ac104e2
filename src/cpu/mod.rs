//! The CPU: matrix products, and loops compiled for each instruction set. Threads come from rayon's pool.

mod awake;
pub mod gemm;
pub mod memory;
pub(crate) mod simd;

pub use awake::awake;
pub(crate) use simd::{reduce, vectorized};

/// Rows that one parallel task takes of a row-wise operation over `cols` columns: about 16 Ki elements.
///
/// It depends on the shape alone. Reductions across rows sum within each task and then add the tasks' sums in order, so that
/// their bits are the same for any number of threads.
pub fn rows_per_task(cols: usize) -> usize {
    (16 * 1024 / cols.max(1)).max(1)
}

/// Bytes of memory that a program can still take without swapping, where the system tells it (Linux).
pub fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What this machine reaches in a large f32 matrix product on all threads, in operations per second: the yardstick of utilisation.
///
/// The best of a few products of 1024³, some 0.1 s in all.
pub fn measure_peak_flops() -> f64 {
    const N: usize = 1024;
    let (a, b, mut c) = (vec![1.0f32; N * N], vec![1.0f32; N * N], vec![0.0f32; N * N]);
    let seconds = (0..4).map(|_| {
        let begun = std::time::Instant::now();
        gemm::matmul(gemm::MatMut::new(&mut c, N, N), 1.0, gemm::MatRef::new(&a, N, N), gemm::MatRef::new(&b, N, N), false, true);
        begun.elapsed().as_secs_f64()
    });
    2.0 * (N * N * N) as f64 / seconds.fold(f64::INFINITY, f64::min)
}
