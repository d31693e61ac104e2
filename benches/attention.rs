//! Attention's share of the speed of a matrix product: `cargo bench --bench attention`.

use std::time::Instant;

use ferromind::cpu::gemm::{MatMut, MatRef, matmul};
use ferromind::ops::attention::{Attention, attend_cached, attention};
use ferromind::ops::linear::linear;
use ferromind::params::Gradients;
use ferromind::rng::Philox;
use ferromind::tape::{Tape, Var};
use ferromind::tensor::Tensor;

fn random(rows: usize, cols: usize, seed: u64) -> Tensor {
    let philox = Philox::new(seed);
    Tensor::build::<f32>([rows, cols], |x| x.iter_mut().enumerate().for_each(|(i, x)| *x = philox.normal(i as u64) as f32))
}

/// Seconds of the fastest of some runs.
fn seconds(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..15).map(time).fold(f64::INFINITY, f64::min)
}

fn main() -> ferromind::Result<()> {
    let n = 1024;
    let (a, b, mut c) = (random(n, n, 1), random(n, n, 2), vec![0.0f32; n * n]);
    let (a, b) = (MatRef::new(a.data::<f32>()?, n, n), MatRef::new(b.data::<f32>()?, n, n));
    let time = seconds(|| matmul(MatMut::new(&mut c, n, n), 1.0, a, b, false, true));
    println!("{:44} {:8.1} GFLOP/s", format!("product of {n}×{n} matrices"), 2.0 * (n * n * n) as f64 / time * 1e-9);

    for (batch, seq_len, heads, kv_heads, d) in [(4, 512, 8, 2, 64), (4, 340, 8, 4, 96), (1, 4096, 8, 2, 64), (2, 512, 16, 16, 128)]
    {
        let options = Attention::new(batch, seq_len, heads, kv_heads, d);
        let rows = batch * seq_len;
        let [q, k, v] = [(heads, 1), (kv_heads, 2), (kv_heads, 3)].map(|(heads, seed)| random(rows, heads * d, seed));
        let weights = Var::constant(random(1, rows * heads * d, 4));
        let multiply_adds = (batch * heads * d) as f64 * (seq_len * (seq_len + 1) / 2) as f64;
        let forward = seconds(|| {
            let [q, k, v] = [&q, &k, &v].map(|x| Var::constant(x.clone()));
            attention(&mut Tape::inference(), &q, &k, &v, options.clone()).map(drop).unwrap_or_else(|error| panic!("{error}"));
        });
        let mut backward = f64::INFINITY;
        for _ in 0..15 {
            let mut tape = Tape::recording();
            let [q, k, v] = [&q, &k, &v].map(|x| tape.input(x.clone()));
            let o = attention(&mut tape, &q, &k, &v, options.clone())?;
            let root = linear(&mut tape, &o.reshape([1, rows * heads * d])?, &weights)?;
            let start = Instant::now();
            tape.backward(&root, 1.0, &mut Gradients::none())?;
            backward = backward.min(start.elapsed().as_secs_f64());
        }
        println!(
            "B {batch} T {seq_len:4} heads {heads:2}/{kv_heads:2} D {d:3}: forward {:7.2} ms {:6.1} GFLOP/s, backward {:7.2} ms {:6.1} GFLOP/s",
            forward * 1e3,
            4.0 * multiply_adds / forward * 1e-9,
            backward * 1e3,
            10.0 * multiply_adds / backward * 1e-9
        );
    }

    for keys in [512, 8192] {
        let (q, k, v) = (random(1, 8 * 64, 1), random(keys, 2 * 64, 2), random(keys, 2 * 64, 3));
        let [q, k, v] = [(&q, 1), (&k, keys), (&v, keys)]
            .map(|(x, rows)| x.data::<f32>().map(|data| MatRef::new(data, rows, data.len() / rows)));
        let (q, k, v, mut o) = (q?, k?, v?, vec![0.0; 8 * 64]);
        let time = seconds(|| attend_cached(q, k, v, [8, 2], 0.125, &mut o).unwrap_or_else(|error| panic!("{error}")));
        let bytes = (2 * keys * 2 * 64 * 4) as f64;
        println!("one token over {keys:4} keys: {:8.1} µs {:6.1} GB/s of the cache", time * 1e6, bytes / time * 1e-9);
    }
    Ok(())
}
