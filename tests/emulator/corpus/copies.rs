//! Bulk and tensor copies of compute_90a, by one block each. Integers: equal bits.

use super::Argument::{Buffer, F32, I32, TensorMap};
use super::data::{Draw, f32_bytes};
use super::expected::{Element, Expected};
use super::{Arch, Case, Launch, Swizzle, kernel};

/// Six chunks per block through three stages; the last chunk has 20 of 128 elements.
pub fn bulk_copy() -> Case {
    let n = 11 * 128 + 20;
    let x = Draw(71).integers(n, 1 << 20);
    let y: Vec<f32> = x.iter().enumerate().map(|(i, x)| 2.0 * x + i as f32).collect();
    Case::new("bulk_copy", Arch::Compute90a, kernel!("bulk_copy.cu"))
        .define("STAGES", 3)
        .input("x", f32_bytes(&x))
        .expect(Expected::f32s("y", &y))
        .launch(Launch::new("bulk_copy", [2, 1, 1], [96, 1, 1], vec![Buffer("y"), Buffer("x"), I32(n as i32)]))
}

/// Three blocks of rows, the last cut to 8; five boxes across, the last cut to 8, through two stages. Rows are padded by four
/// elements, which stay as they were.
pub fn tensor_copy() -> Case {
    let (rows, columns, pitch, alpha) = (40, 136, 140, 3.0);
    let mut draw = Draw(72);
    let (x, start) = (draw.integers(rows * pitch, 1 << 20), draw.integers(rows * pitch, 1 << 20));
    let y: Vec<f32> =
        (0..rows * pitch).map(|i| if i % pitch < columns { x[i] * alpha + (i / pitch) as f32 } else { start[i] }).collect();
    let map = |buffer| {
        TensorMap(super::TensorMap {
            buffer,
            element: Element::F32,
            dims: vec![columns as u64, rows as u64],
            strides: vec![pitch as u64 * 4],
            tile: vec![32, 16],
            swizzle: Swizzle::Bytes128,
        })
    };
    Case::new("tensor_copy", Arch::Compute90a, kernel!("tensor_copy.cu"))
        .define("THREADS", 128)
        .input("x", f32_bytes(&x))
        .in_out("y", f32_bytes(&start))
        .expect(Expected::f32s("y", &y))
        .launch(Launch::new("tensor_copy", [3, 1, 1], [128, 1, 1], vec![map("y"), map("x"), I32(columns as i32), F32(alpha)]))
}

/// 21 rows for four blocks, added to what is not zero.
pub fn bulk_reduce() -> Case {
    let (rows, columns) = (21, 100);
    let mut draw = Draw(73);
    let (x, start) = (draw.integers(rows * columns, 1 << 16), draw.integers(columns, 1 << 16));
    let total: Vec<f32> = (0..columns).map(|c| start[c] + (0..rows).map(|r| x[r * columns + c]).sum::<f32>()).collect();
    Case::new("bulk_reduce", Arch::Compute90a, kernel!("bulk_reduce.cu"))
        .define("THREADS", 128)
        .input("x", f32_bytes(&x))
        .in_out("total", f32_bytes(&start))
        .expect(Expected::f32s("total", &total))
        .launch(Launch::new(
            "bulk_reduce",
            [4, 1, 1],
            [128, 1, 1],
            vec![Buffer("total"), Buffer("x"), I32(rows as i32), I32(columns as i32)],
        ))
}
