//! Speed of the CPU's `f32` matrix products beside the `gemm` crate's, on the shapes of a step of a 26 M-parameter model: `cargo bench
//! --bench gemm [threads] [name]`. The two take turns, so that a busy machine slows both; medians of the rounds, in GFLOP/s.

use ferromind::cpu::gemm::{MatMut, MatRef, matmul};
use std::time::Instant;

/// A name, m, k, n, whether A and B lie transposed in memory, and whether C accumulates.
type Shape = (&'static str, usize, usize, usize, bool, bool, bool);

const SHAPES: &[Shape] = &[
    ("forward qkv", 2048, 512, 768, false, true, false),
    ("forward out", 2048, 512, 512, false, true, false),
    ("forward gate+up", 2048, 512, 2816, false, true, false),
    ("forward down", 2048, 1408, 512, false, true, false),
    ("forward logits", 512, 512, 6400, false, true, false),
    ("dX qkv", 2048, 768, 512, false, false, false),
    ("dX gate+up", 2048, 2816, 512, false, false, false),
    ("dX down", 2048, 512, 1408, false, false, false),
    ("dX logits", 512, 6400, 512, false, false, false),
    ("dW qkv", 768, 2048, 512, true, false, true),
    ("dW gate+up", 2816, 2048, 512, true, false, true),
    ("dW down", 512, 2048, 1408, true, false, true),
    ("dW logits", 6400, 512, 512, true, false, true),
    ("attention scores", 64, 64, 256, false, true, false),
    ("attention values", 64, 512, 64, false, false, false),
    ("attention dK", 128, 128, 64, true, false, false),
    ("decode qkv", 1, 512, 768, false, true, false),
    ("decode logits", 1, 512, 6400, false, true, false),
    ("decode logits, batch 16", 16, 512, 6400, false, true, false),
];

/// Rounds of one shape.
const ROUNDS: usize = 15;
/// Operations that one timing should hold at least, to be longer than the clock's noise.
const OPERATIONS: f64 = 2e8;

fn main() {
    let mut threads = rayon::current_num_threads();
    let mut filter = String::new();
    for argument in std::env::args().skip(1).filter(|x| !x.starts_with("--")) {
        match argument.parse() {
            Ok(number) => threads = number,
            Err(_) => filter = argument,
        }
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    println!("{threads} threads; GFLOP/s{:>36} {:>9} {:>6}", "ours", "crate", "ratio");
    for shape in SHAPES.iter().filter(|x| x.0.contains(&filter)) {
        pool.install(|| measure(shape, threads > 1));
    }
}

fn measure(&(name, m, k, n, a_t, b_t, accumulate): &Shape, parallel: bool) {
    let fill = |length: usize| (0..length).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect::<Vec<f32>>();
    let (a, b, mut c) = (fill(m * k), fill(k * n), vec![0.0; m * n]);
    let a = if a_t { MatRef::new(&a, k, m).t() } else { MatRef::new(&a, m, k) };
    let b = if b_t { MatRef::new(&b, n, k).t() } else { MatRef::new(&b, k, n) };
    let operations = (2 * m * k * n) as f64;
    let repeats = (OPERATIONS / operations).ceil() as usize;
    let mut rates = [const { Vec::new() }; 2];
    // One round more than is counted: the first warms the caches.
    for round in 0..=ROUNDS {
        for (who, rates) in rates.iter_mut().enumerate() {
            let begun = Instant::now();
            for _ in 0..repeats {
                match who {
                    0 => matmul(MatMut::new(&mut c, m, n), 1.0, a, b, accumulate, parallel),
                    _ => crate_matmul(&mut c, a, b, accumulate, parallel),
                }
            }
            if round > 0 {
                rates.push(operations * repeats as f64 / begun.elapsed().as_secs_f64() / 1e9);
            }
        }
    }
    let [ours, theirs] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("{name:25} {m:5} x {k:4} x {n:4} {ours:9.1} {theirs:9.1} {:6.2}", ours / theirs);
}

fn crate_matmul(c: &mut [f32], a: MatRef<f32>, b: MatRef<f32>, accumulate: bool, parallel: bool) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let strides = |x: &MatRef<f32>| (x.col_stride as isize, x.row_stride as isize);
    let ((a_col, a_row), (b_col, b_row)) = (strides(&a), strides(&b));
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    let (c, c_row) = (c.as_mut_ptr(), n as isize);
    let (a, b) = (a.data.as_ptr(), b.data.as_ptr());
    // SAFETY: the three slices hold m·n, m·k and k·n elements, which these strides walk through.
    unsafe {
        gemm::gemm(m, n, k, c, 1, c_row, accumulate, a, a_col, a_row, b, b_col, b_row, 1.0, 1.0, false, false, false, parallelism);
    }
}
