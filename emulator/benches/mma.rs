//! Speed of the matrix product on one core: multiply-adds per second for the shapes that kernels use most.
//!
//! `cargo bench -p ptx-emulator --bench mma`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ptx_emulator::tensor::Register;
use ptx_emulator::tensor::element::Accumulator::{self, F16 as D16, F32 as D32, S32};
use ptx_emulator::tensor::element::Multiplicand::{self, Bf16, E4m3, F16, S8, Tf32};
use ptx_emulator::tensor::mma::{Addend, Mma};

fn main() -> Result<(), String> {
    for (k, a, d) in [(16, Bf16, D32), (16, F16, D32), (16, F16, D16), (8, Tf32, D32), (32, E4m3, D32), (32, S8, S32)] {
        report(&format!("mma.m16n8k{k}"), Mma::sync((16, 8, k), a, a, d, d)?, a, d);
    }
    for (n, a, d) in [(64, Bf16, D32), (128, Bf16, D32), (256, Bf16, D32), (128, E4m3, D32), (128, Tf32, D32)] {
        let mma = Mma::wgmma(n, a, a, d)?;
        report(&format!("wgmma.m64n{n}k{}", mma.shape().2), mma, a, d);
    }
    Ok(())
}

/// Times four warps' products with one B (one `wgmma`, or four `mma.sync` that share B), best of 20 samples of 20 ms.
fn report(name: &str, mma: Mma, a: Multiplicand, d: Accumulator) {
    let fill = |count: usize, seed: u32| -> Vec<Register> {
        // Every type reads these bits as ordinary numbers: near 1 for the floats of 16 and 32 bits.
        let word = |i: u32| 0x3c00_3c00 | i.wrapping_mul(0x9e37_79b9) & 0x83ff_83ff;
        (0..count as u32).map(|r| std::array::from_fn(|lane| word(seed + 32 * r + lane as u32))).collect()
    };
    let (registers_a, registers_b) = (fill(mma.a().registers(), 1), fill(mma.b().registers(), 77));
    let mut registers_d = vec![[0; 32]; mma.d().registers()];
    let wide = name.starts_with("wgmma");
    let mut best = f64::MAX;
    for _ in 0..20 {
        let (start, mut calls) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_millis(20) {
            for _ in 0..16 {
                let (x, y) = (black_box(&registers_a), black_box(&registers_b));
                if wide {
                    let panels = mma.unpack(y);
                    (0..4).for_each(|_| mma.multiply(x, &panels, Addend::Destination, &mut registers_d));
                } else {
                    (0..4).for_each(|_| mma.run(x, y, Addend::Destination, &mut registers_d));
                }
                black_box(&mut registers_d);
            }
            calls += 64;
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(calls));
    }
    let (m, n, k) = mma.shape();
    println!(
        "{name:<18} {a:?} -> {d:?}: {:6.2} G multiply-adds/s, {:8.1} ns per warp",
        (m * n * k) as f64 / best / 1e9,
        best * 1e9
    );
}
