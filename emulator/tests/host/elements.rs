//! Matrices of small integers in every element type, and their products.

use half::{bf16, f16};

/// Bits of a small integer as an element of a type.
pub fn bits(ty: &str, value: i32) -> u64 {
    let sign = |shift: u32| u64::from(value < 0) << shift;
    let magnitude = value.unsigned_abs() as usize;
    match ty {
        "f64" => f64::from(value).to_bits(),
        "f32" | "tf32" => u64::from((value as f32).to_bits()),
        "f16" => u64::from(f16::from_f32(value as f32).to_bits()),
        "bf16" => u64::from(bf16::from_f32(value as f32).to_bits()),
        "e4m3" => sign(7) | [0, 0x38, 0x40, 0x44, 0x48][magnitude],
        "e5m2" => sign(7) | [0, 0x3c, 0x40, 0x42, 0x44][magnitude],
        "s4" | "u4" => value as u64 & 15,
        "s8" | "u8" => value as u64 & 255,
        _ => value as u64 & 0xffff_ffff,
    }
}

/// Bits of an element.
pub fn width(ty: &str) -> usize {
    match ty {
        "f64" => 64,
        "f16" | "bf16" => 16,
        "e4m3" | "e5m2" | "s8" | "u8" => 8,
        "s4" | "u4" => 4,
        _ => 32,
    }
}

/// Small numbers, the same each time; none is negative if `unsigned`.
pub fn numbers(count: usize, seed: usize, unsigned: bool) -> Vec<i32> {
    let number = |i: usize| ((i * 7919 + seed) * 104_729 / 64 % if unsigned { 5 } else { 9 }) as i32;
    (0..count).map(|i| number(i) - if unsigned { 0 } else { 4 }).collect()
}

/// A·B + C with A of m × k, B of k × n, all row-major.
pub fn product((m, n, k): (usize, usize, usize), a: &[i32], b: &[i32], c: &[i32]) -> Vec<i32> {
    let at = |i: usize, j: usize| (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum::<i32>() + c[i * n + j];
    (0..m * n).map(|index| at(index / n, index % n)).collect()
}
